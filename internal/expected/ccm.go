package expected

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf16"

	"freshet/internal/content"
)

// Where Configuration Manager's client keeps the metadata of its downloads.
const (
	ccmNamespace = `root\ccm\SoftMgmtAgent`
	ccmQuery     = `SELECT * FROM DownloadInfoEx2`
)

// Limits of an answer of the client.
const (
	maxRows     = 10_000
	maxRowBytes = 16 << 20 // of the whole answer
)

// How long an answer stands: each question starts a process, and an agent looks up all that it
// downloads at once.
const (
	answerLife = 5 * time.Second
	absentLife = 10 * time.Minute // that there is no client
	awaitRetry = time.Minute      // of a client that does not answer
)

// Row is one instance of DownloadInfoEx2: its properties that are text, by name.
type Row map[string]string

// Rows asks the client of this device for all instances.
type Rows func(context.Context) ([]Row, error)

// CCM is the provider "ccm". The class is not documented: its instances bear the <Content>
// document in one of their properties. So a property is taken for metadata when it begins
// with such a document, whatever its name, and the content is known by the document alone.
type CCM struct {
	rows Rows
	busy chan struct{} // holds a token while the client is asked; guards the following
	last answer
}

// answer is what the client said last, or why it said nothing.
type answer struct {
	sources []source
	err     error
	until   time.Time // when it is asked again
}

// NewCCM returns the provider that asks rows; [SystemRows] asks this device's client.
func NewCCM(rows Rows) *CCM { return &CCM{rows: rows, busy: make(chan struct{}, 1)} }

// Lookup returns what the client expects of ref; [ErrNone] when it says nothing, or when there
// is no client.
func (c *CCM) Lookup(ctx context.Context, ref content.Ref) (Content, error) {
	sources, err := c.ask(ctx)
	switch {
	case errors.Is(err, ErrNoClient):
		return Content{}, ErrNone
	case err != nil:
		return Content{}, fmt.Errorf("expected: look up %s in DownloadInfoEx2: %w", ref, err)
	}
	return lookup(sources, ref)
}

// Await asks the client until it is known whether there is one, and says so. A client that
// does not answer, as while the device starts, is not taken for none.
func (c *CCM) Await(ctx context.Context, log *slog.Logger) {
	for {
		_, err := c.ask(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			log.Info("the Configuration Manager client of this device is asked for expected metadata")
			return
		case errors.Is(err, ErrNoClient):
			log.Info("no expected metadata from Configuration Manager", "reason", err)
			return
		}
		log.Warn("the Configuration Manager client does not answer; nobody knows what it expects", "again", awaitRetry, "err", err)
		select {
		case <-time.After(awaitRetry):
		case <-ctx.Done():
			return
		}
	}
}

// ask returns what the client says, asking it anew when its last answer is old. Who asks
// meanwhile waits for the answer.
func (c *CCM) ask(ctx context.Context) ([]source, error) {
	select {
	case c.busy <- struct{}{}:
		defer func() { <-c.busy }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if time.Now().Before(c.last.until) {
		return c.last.sources, c.last.err
	}
	rows, err := c.rows(ctx)
	if err != nil && ctx.Err() != nil { // the asker's doing
		return nil, err
	}
	life := answerLife
	if errors.Is(err, ErrNoClient) {
		life = absentLife
	}
	c.last = answer{sourcesOf(rows), err, time.Now().Add(life)}
	return c.last.sources, err
}

// sourcesOf maps rows to documents.
func sourcesOf(rows []Row) []source {
	var sources []source
	for i, row := range rows {
		for _, property := range slices.Sorted(maps.Keys(row)) {
			if !isDocument(row[property]) {
				continue
			}
			s := source{name: fmt.Sprintf("property %s of row %d", property, i+1)}
			s.text, s.err = parse(strings.NewReader(row[property]))
			if s.err != nil && s.in.Version != 0 { // a row is of one content
				s.bad, s.err = map[content.Ref]error{s.in: s.err}, nil
			}
			sources = append(sources, s)
		}
	}
	return sources
}

// isDocument reports whether text begins as metadata does.
func isDocument(text string) bool {
	text = strings.TrimSpace(strings.TrimPrefix(text, "\ufeff"))
	text = strings.TrimSpace(strings.TrimPrefix(text, "SDMPackage:"))
	if strings.HasPrefix(text, "<?xml") {
		_, text, _ = strings.Cut(text, "?>")
		text = strings.TrimSpace(text)
	}
	rest, ok := strings.CutPrefix(text, "<Content")
	return ok && rest != "" && strings.ContainsRune(" \t\r\n>", rune(rest[0]))
}

// absentCode is the exit status of ccmScript where there is no such namespace or class.
const absentCode = 3

// ccmScript makes PowerShell print the text properties of all rows as JSON, in UTF-8. An error
// is told by its number in WMI, since its text is in the device's language.
const ccmScript = `$ErrorActionPreference='Stop';` +
	`[Console]::OutputEncoding=New-Object Text.UTF8Encoding $false;` +
	`try{$rows=@(Get-CimInstance -Namespace '` + ccmNamespace + `' -Query '` + ccmQuery + `'|ForEach-Object{` +
	`$row=[ordered]@{};foreach($p in $_.CimInstanceProperties){if($p.Value -is [string]){$row[$p.Name]=$p.Value}};[pscustomobject]$row})}` +
	`catch{if('InvalidNamespace','InvalidClass' -contains $_.Exception.NativeErrorCode){exit 3};throw};` +
	`ConvertTo-Json -InputObject $rows -Compress -Depth 2`

// ccmArguments are those of powershell.exe. The script goes as base64 of UTF-16, which no
// rule of quoting can change.
func ccmArguments() []string {
	return []string{"-NoLogo", "-NoProfile", "-NonInteractive", "-EncodedCommand", base64.StdEncoding.EncodeToString(utf16Bytes(ccmScript))}
}

// utf16Bytes returns s as UTF-16, little-endian.
func utf16Bytes(s string) []byte {
	var b []byte
	for _, unit := range utf16.Encode([]rune(s)) {
		b = append(b, byte(unit), byte(unit>>8))
	}
	return b
}

// parseRows reads what the script prints: an array, or nothing where there are no rows.
func parseRows(out []byte) ([]Row, error) {
	if len(out) > maxRowBytes {
		return nil, fmt.Errorf("the client's answer has more than %d bytes", maxRowBytes)
	}
	out = bytes.TrimSpace(bytes.TrimPrefix(out, []byte("\ufeff")))
	if len(out) == 0 {
		return nil, nil
	}
	var raw []map[string]any
	if err := json.Unmarshal(out, &raw); err != nil {
		return nil, fmt.Errorf("the client's answer is no JSON array: %w", err)
	}
	if len(raw) > maxRows {
		return nil, fmt.Errorf("the client has more than %d rows", maxRows)
	}
	rows := make([]Row, len(raw))
	for i, properties := range raw {
		rows[i] = make(Row)
		for name, value := range properties {
			if text, ok := value.(string); ok {
				rows[i][name] = text
			}
		}
	}
	return rows, nil
}

// ErrNoClient says that this device has no Configuration Manager client.
var ErrNoClient = errors.New("this device has no Configuration Manager client")
