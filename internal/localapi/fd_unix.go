//go:build unix

package localapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"freshet/internal/deliver"
)

// send writes a call, with dir as a descriptor.
func send(c *net.UnixConn, call Call, dir *os.File) error {
	b, err := json.Marshal(call)
	if err != nil {
		return err
	}
	var rights []byte
	if dir != nil {
		rights = unix.UnixRights(int(dir.Fd()))
	}
	if _, _, err = c.WriteMsgUnix(append(b, '\n'), rights, nil); err != nil {
		return err
	}
	return call.sendMetadata(c)
}

// receive reads a call, and the directory that came with it.
func receive(c *net.UnixConn) (call Call, dir *os.File, err error) {
	buf := make([]byte, maxLine)
	oob := make([]byte, unix.CmsgSpace(4*4))
	n, oobn, _, _, err := c.ReadMsgUnix(buf, oob)
	if err != nil {
		return Call{}, nil, err
	}
	if dir, err = received(oob[:oobn]); err != nil {
		return Call{}, nil, err
	}
	line, rest, whole := bytes.Cut(buf[:n], []byte("\n"))
	if !whole {
		err = errors.New("localapi: the call is not one line")
	} else if err = json.Unmarshal(line, &call); err == nil {
		err = call.readMetadata(io.MultiReader(bytes.NewReader(rest), c))
	}
	if err != nil && dir != nil {
		dir.Close()
		dir = nil
	}
	return call, dir, err
}

// received returns the first descriptor of the control messages and closes the others.
func received(oob []byte) (*os.File, error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var dir *os.File
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			continue
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			if dir == nil {
				dir = os.NewFile(uintptr(fd), "destination")
			} else {
				unix.Close(fd)
			}
		}
	}
	return dir, nil
}

// openDest opens the directory that came as a descriptor. To have it open proves that the
// caller may read it; the agent, which may be root, sees for itself that the caller may write.
func openDest(call Call, dir *os.File, owner deliver.Owner) (*os.Root, error) {
	if dir == nil {
		return nil, errors.New("the call came without a destination directory")
	}
	if owner.UID != os.Geteuid() {
		if err := mayWrite(dir, owner); err != nil {
			return nil, fmt.Errorf("the destination %q is not yours to write to: %w", call.Path, err)
		}
	}
	root, err := os.OpenRoot(fmt.Sprintf("/dev/fd/%d", dir.Fd()))
	if err != nil {
		return nil, fmt.Errorf("the destination cannot be opened: %w", err)
	}
	return root, nil
}
