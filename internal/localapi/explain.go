package localapi

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"freshet/internal/agent"
	"freshet/internal/store"
)

// explain puts the error of a get into its caller's words: the content, and the directory by
// the name that the caller knows. The agent has it under that of a descriptor. What is full
// is the destination's disk unless it is the cache's.
func (call Call) explain(err error, dest *os.Root) error {
	if err == nil || errors.Is(err, agent.ErrStopping) {
		return err
	}
	text := strings.ReplaceAll(err.Error(), dest.Name(), call.Path)
	if store.IsFull(err) && !errors.Is(err, store.ErrFull) {
		text = fmt.Sprintf("%s: the disk of the destination %q is full: %s; free some room there or choose another directory: what was fetched stays in the cache", call.Content, call.Path, text)
	}
	return errors.New(text)
}
