package expected

import (
	"context"
	"encoding/base64"
	"errors"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf16"

	"freshet/internal/content"
)

// recorded returns the rows of an answer of the client.
func recorded(t *testing.T, name string) Rows {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := parseRows(b)
	return func(context.Context) ([]Row, error) { return rows, err }
}

func TestRecordedRows(t *testing.T) {
	c := NewCCM(recorded(t, "rows.json"))
	ctx := context.Background()
	got, err := c.Lookup(ctx, seedRef)
	if err != nil {
		t.Fatal(err)
	}
	if hash, err := got.MetadataHash(); err != nil || hash.String() != sampleHash {
		t.Errorf("MetadataHash %v, %v, want %s", hash, err, sampleHash)
	}
	got, err = c.Lookup(ctx, kbRef)
	if err != nil {
		t.Fatal(err)
	}
	if hash, err := got.MetadataHash(); err != nil || hash.String() != kbHash {
		t.Errorf("MetadataHash %v, %v, want %s", hash, err, kbHash)
	}
	cut := content.Ref{ID: "cut", Version: 1}
	if _, err := c.Lookup(ctx, cut); err == nil || !strings.Contains(err.Error(), "property Files of row 4: expected: metadata line 1: the text is cut short") {
		t.Errorf("Lookup of the content that is cut short = %v", err)
	}
	other := kbRef
	other.Version = 2
	if _, err := c.Lookup(ctx, other); !errors.Is(err, ErrNone) {
		t.Errorf("Lookup of a content that no row is of = %v, want ErrNone", err)
	}
}

// TestRowNobodyCanName: a row whose content is not known may be of any.
func TestRowNobodyCanName(t *testing.T) {
	c := NewCCM(func(context.Context) ([]Row, error) {
		return []Row{{"Files": `<Content ContentId="a">`}, {"Files": kb}}, nil
	})
	if _, err := c.Lookup(t.Context(), kbRef); err != nil {
		t.Errorf("Lookup of what another row names = %v", err)
	}
	if _, err := c.Lookup(t.Context(), seedRef); err == nil || errors.Is(err, ErrNone) {
		t.Errorf("Lookup of what no row names = %v, want what is wrong with the first", err)
	}
}

func TestNoRows(t *testing.T) {
	for name, out := range map[string]string{"nothing": "", "blanks": "\r\n", "no instance": "[]", "no text": `[{"State":1,"Location":null}]`} {
		rows, err := parseRows([]byte("\ufeff" + out))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		c := NewCCM(func(context.Context) ([]Row, error) { return rows, nil })
		if _, err := c.Lookup(context.Background(), kbRef); !errors.Is(err, ErrNone) {
			t.Errorf("%s: Lookup = %v, want ErrNone", name, err)
		}
	}
}

func TestParseRowsRefuses(t *testing.T) {
	for name, c := range map[string]struct{ out, want string }{
		"a complaint": {"Get-CimInstance : Invalid class", "no JSON array"},
		"one object":  {`{"ContentId":"a"}`, "no JSON array"},
		"cut short":   {`[{"ContentId":"a"`, "no JSON array"},
		"too long":    {strings.Repeat(" ", maxRowBytes+1), "more than 16777216 bytes"},
		"many rows":   {"[" + strings.Repeat("{},", maxRows) + "{}]", "more than 10000 rows"},
	} {
		if _, err := parseRows([]byte(c.out)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error with %q", name, err, c.want)
		}
	}
}

func TestIsDocument(t *testing.T) {
	for text, want := range map[string]bool{
		kb: true, "SDMPackage:" + kb: true, " SDMPackage: \n" + kb: true, "\ufeff<?xml version='1.0'?>\n" + kb: true, "<Content": false,
		"<Contents/>": false, "<Content>": true, "see <Content ": false, "": false, "<?xml": false,
	} {
		if got := isDocument(text); got != want {
			t.Errorf("isDocument(%.30q) = %v, want %v", text, got, want)
		}
	}
}

// TestScript decodes what PowerShell is given: the namespace and query, and nothing to quote.
func TestScript(t *testing.T) {
	args := ccmArguments()
	b, err := base64.StdEncoding.DecodeString(args[len(args)-1])
	if err != nil || len(b)%2 != 0 {
		t.Fatalf("last argument: %v, %d bytes", err, len(b))
	}
	units := make([]uint16, len(b)/2)
	for i := range units {
		units[i] = uint16(b[2*i]) | uint16(b[2*i+1])<<8
	}
	script := string(utf16.Decode(units))
	const want = `Get-CimInstance -Namespace 'root\ccm\SoftMgmtAgent' -Query 'SELECT * FROM DownloadInfoEx2'`
	if !strings.Contains(script, "{exit "+strconv.Itoa(absentCode)+"}") {
		t.Errorf("script %q does not exit with %d where there is no client", script, absentCode)
	}
	if !strings.Contains(script, want) || args[len(args)-2] != "-EncodedCommand" {
		t.Errorf("arguments %q decode to %q, want %q in it", args, script, want)
	}
}

// TestNoClientIsNoError, while a client that fails is: nobody knows what it expects.
func TestNoClientIsNoError(t *testing.T) {
	absent := NewCCM(func(context.Context) ([]Row, error) { return nil, ErrNoClient })
	if _, err := absent.Lookup(t.Context(), kbRef); !errors.Is(err, ErrNone) {
		t.Errorf("Lookup without a client = %v, want ErrNone", err)
	}
	broken := errors.New("no memory")
	failing := NewCCM(func(context.Context) ([]Row, error) { return nil, broken })
	if _, err := failing.Lookup(t.Context(), kbRef); !errors.Is(err, broken) || errors.Is(err, ErrNone) {
		t.Errorf("Lookup of a client that fails = %v, want its error", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	failing.busy <- struct{}{} // another question is open
	if _, err := failing.Lookup(ctx, kbRef); !errors.Is(err, context.Canceled) {
		t.Errorf("Lookup while another is open = %v, want that the context ended", err)
	}
}

// TestOneQuestionForAll: lookups of one moment ask the client once.
func TestOneQuestionForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		questions := 0
		said := []Row{{"Files": kb}}
		c := NewCCM(func(context.Context) ([]Row, error) {
			questions++
			<-time.After(20 * time.Second)
			return said, nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if _, err := c.Lookup(ctx, kbRef); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if questions != 1 {
			t.Errorf("%d questions for 50 lookups, want 1", questions)
		}
		said = nil
		<-time.After(answerLife)
		if _, err := c.Lookup(t.Context(), kbRef); !errors.Is(err, ErrNone) || questions != 2 {
			t.Errorf("later: %v after %d questions, want ErrNone after 2", err, questions)
		}
	})
}

// TestAwait: a client that does not answer while the device starts is asked again, and one that
// was not there is when it came.
func TestAwait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		said := errors.New("the service is starting")
		c := NewCCM(func(context.Context) ([]Row, error) {
			if time.Since(begun) > 3*time.Minute {
				said = nil
			}
			return []Row{{"Files": kb}}, said
		})
		go c.Await(t.Context(), slog.New(slog.DiscardHandler))
		synctest.Wait()
		if _, err := c.Lookup(t.Context(), kbRef); !errors.Is(err, said) {
			t.Errorf("while it starts: %v, want its error", err)
		}
		c.Await(t.Context(), slog.New(slog.DiscardHandler))
		if waited := time.Since(begun); waited < 3*time.Minute || waited > 5*time.Minute {
			t.Errorf("the client was seen after %v, want 3 to 5 min", waited)
		}
		if _, err := c.Lookup(t.Context(), kbRef); err != nil {
			t.Error(err)
		}
		said = ErrNoClient
		begun = time.Now().Add(time.Hour)
		<-time.After(time.Minute)
		c.Await(t.Context(), slog.New(slog.DiscardHandler))
		if _, err := c.Lookup(t.Context(), kbRef); !errors.Is(err, ErrNone) {
			t.Errorf("after it was removed: %v, want ErrNone", err)
		}
		begun = time.Now().Add(-time.Hour)
		<-time.After(absentLife)
		if _, err := c.Lookup(t.Context(), kbRef); err != nil {
			t.Errorf("after it was installed: %v", err)
		}
	})
}
