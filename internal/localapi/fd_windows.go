package localapi

import (
	"bufio"
	"errors"
	"net"
	"os"
	"path/filepath"

	"freshet/internal/deliver"
)

// send writes a call; the directory goes by its path.
func send(c *net.UnixConn, call Call, _ *os.File) error {
	if err := writeLine(c, call); err != nil {
		return err
	}
	return call.sendMetadata(c)
}

func receive(c *net.UnixConn) (call Call, dir *os.File, err error) {
	r := bufio.NewReaderSize(c, maxLine)
	if err = readLine(r, &call); err == nil {
		err = call.readMetadata(r)
	}
	return call, nil, err
}

// openDest opens the directory that the caller named.
func openDest(call Call, _ *os.File, _ deliver.Owner) (*os.Root, error) {
	if !filepath.IsAbs(call.Path) {
		return nil, errors.New("the destination must be an absolute path")
	}
	return os.OpenRoot(call.Path)
}

// callerOf returns the agent's own user: files belong to whoever the directory's rules say.
func callerOf(*net.UnixConn) (deliver.Owner, error) {
	return deliver.Owner{UID: os.Geteuid(), GID: os.Getegid()}, nil
}
