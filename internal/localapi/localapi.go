// Package localapi is how programs on a device talk to its agent: over the unix socket
// STATE/freshet.sock, whose peer credentials say who calls.
//
// # Protocol
//
// One call a connection. The caller sends one line of JSON, a [Call]; with "get" the
// directory that the files go to comes along as a file descriptor (SCM_RIGHTS), so that
// the agent opens nothing that the caller could not. Expected metadata follows the line, as
// many bytes as it says, at most 4 MiB. The agent answers with lines of JSON,
// [Reply]: any number of progress lines, then one that ends the call. Closing the
// connection cancels a get; what is in the cache stays. Lines have at most 64 KiB.
//
// A status tells a user of the contents that they asked for; root and the agent's own user
// hear of all, and they alone of the traffic with other devices. The settings hold no secrets and are everybody's to read.
//
// Where descriptors cannot be handed over (Windows), the caller names the directory.
package localapi

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"freshet/internal/agent"
	"freshet/internal/expected"
	"freshet/internal/policy"
)

// Calls.
const (
	opGet     = "get"
	opStatus  = "status"
	opConfig  = "config"
	opTraffic = "traffic"
	opLAN     = "lan"
)

// Call is what a caller asks.
type Call struct {
	Op      string `json:"op"`
	Content string `json:"content,omitempty"` // of get: ID or ID@VERSION, or a URL that a content is known by
	Path    string `json:"path,omitempty"`    // of get, where no descriptor can be sent
	NoCheck bool   `json:"noCheck,omitempty"`

	Foreground bool `json:"foreground,omitempty"` // of get: somebody waits for it

	Expect   int64  `json:"expect,omitempty"` // of get: bytes of Metadata; send sets it
	Match    string `json:"match,omitempty"`  // of Metadata: exact (also ""), or subset
	Metadata []byte `json:"-"`                // of get: what the files must be (package expected); nil: the device's own decides
}

// Reply is one line of an answer. At most one field is set, besides Done. A long Status or
// Traffic comes in several lines.
type Reply struct {
	Progress *agent.Progress `json:"progress,omitempty"`
	Status   []agent.Status  `json:"status,omitempty"`
	Config   []policy.Shown  `json:"config,omitempty"`
	Traffic  []agent.Traffic `json:"traffic,omitempty"`
	LAN      *agent.LAN      `json:"lan,omitempty"`
	Error    string          `json:"error,omitempty"`
	Done     bool            `json:"done,omitempty"` // the last line
}

const (
	maxLine     = 64 << 10
	trafficLine = 256 // devices told of in one line, at most
)

// ErrGone says that the connection ended before the answer did: the agent stopped.
var ErrGone = errors.New("the agent went away")

// readLine reads one line of JSON into v.
func readLine(r *bufio.Reader, v any) error {
	line, err := r.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return errors.New("localapi: the line is too long")
	case err == io.EOF && len(line) == 0:
		return io.EOF
	case err != nil:
		return err
	}
	if err := json.Unmarshal(line, v); err != nil {
		return fmt.Errorf("localapi: %w", err)
	}
	return nil
}

// readMetadata reads the bytes that follow a call.
func (call *Call) readMetadata(r io.Reader) error {
	if call.Expect < 0 || call.Expect > expected.MaxSize {
		return fmt.Errorf("localapi: expected metadata of %d bytes; %d are allowed", call.Expect, expected.MaxSize)
	}
	if call.Expect == 0 {
		return nil
	}
	call.Metadata = make([]byte, call.Expect)
	if _, err := io.ReadFull(r, call.Metadata); err != nil {
		return fmt.Errorf("localapi: reading expected metadata: %w", err)
	}
	return nil
}

func (call *Call) sendMetadata(w io.Writer) error {
	if len(call.Metadata) == 0 {
		return nil
	}
	_, err := w.Write(call.Metadata)
	return err
}

func writeLine(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = w.Write(append(b, '\n'))
	return err
}
