package expected

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
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

// Row is one instance of DownloadInfoEx2: its properties that are text, by name.
type Row map[string]string

// Rows asks the client of this device for all instances.
type Rows func(context.Context) ([]Row, error)

// CCM is the provider "ccm". The class is not documented: its instances bear the <Content>
// document in one of their properties. So a property is taken for metadata when it begins
// with such a document, whatever its name, and the content is known by the document alone.
type CCM struct {
	rows Rows
	busy chan struct{} // one question at a time: each starts a process
}

// NewCCM returns the provider that asks rows; [SystemRows] asks this device's client.
func NewCCM(rows Rows) *CCM { return &CCM{rows: rows, busy: make(chan struct{}, 1)} }

// Lookup returns what the client expects of ref; [ErrNone] when it says nothing.
func (c *CCM) Lookup(ctx context.Context, ref content.Ref) (Content, error) {
	select {
	case c.busy <- struct{}{}:
	case <-ctx.Done():
		return Content{}, fmt.Errorf("expected: look up %s: %w", ref, ctx.Err())
	}
	defer func() { <-c.busy }()
	rows, err := c.rows(ctx)
	if err != nil {
		return Content{}, fmt.Errorf("expected: look up %s in DownloadInfoEx2: %w", ref, err)
	}
	return lookup(sourcesOf(rows), ref)
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

// ccmScript makes PowerShell print the text properties of all rows as JSON, in UTF-8.
const ccmScript = `$ErrorActionPreference='Stop';` +
	`[Console]::OutputEncoding=New-Object Text.UTF8Encoding $false;` +
	`$rows=@(Get-CimInstance -Namespace '` + ccmNamespace + `' -Query '` + ccmQuery + `'|ForEach-Object{` +
	`$row=[ordered]@{};foreach($p in $_.CimInstanceProperties){if($p.Value -is [string]){$row[$p.Name]=$p.Value}};[pscustomobject]$row});` +
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

// ErrNoClient is the lookup on a system that has no Configuration Manager client.
var ErrNoClient = errors.New("the Configuration Manager client runs on Windows alone; take metadata from files")
