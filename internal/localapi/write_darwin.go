package localapi

import (
	"os"

	"golang.org/x/sys/unix"

	"freshet/internal/deliver"
)

// mayWrite goes by the directory's mode: its owner, its group, all others.
func mayWrite(dir *os.File, owner deliver.Owner) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return err
	}
	need := uint16(0o003)
	switch {
	case owner.UID == 0:
		return nil
	case int(st.Uid) == owner.UID:
		need = 0o300
	case int(st.Gid) == owner.GID:
		need = 0o030
	}
	if st.Mode&need != need {
		return unix.EACCES
	}
	return nil
}
