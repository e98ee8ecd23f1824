package disk_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"freshet/internal/disk"
	"freshet/internal/disk/memdisk"
)

// each runs a test on the operating system's disk and on that of the tests.
func each(t *testing.T, test func(t *testing.T, d disk.Disk)) {
	t.Run("dir", func(t *testing.T) {
		d, err := disk.Open(filepath.Join(t.TempDir(), "cache"))
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		test(t, d)
	})
	t.Run("mem", func(t *testing.T) { test(t, memdisk.New()) })
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// TestDisk is what both disks have in common.
func TestDisk(t *testing.T) {
	each(t, func(t *testing.T, d disk.Disk) {
		must(t, d.Mkdir("x"), disk.WriteFile(d, "x/a", []byte("one")), disk.WriteFile(d, "x/b", []byte("two")), d.Link("x/a", "x/c"))
		for name, err := range map[string]error{
			"mkdir":  d.Mkdir("x"),
			"create": disk.WriteFile(d, "x/a", nil),
			"link":   d.Link("x/b", "x/a"),
		} {
			if !errors.Is(err, fs.ErrExist) {
				t.Errorf("%s of what is there: %v", name, err)
			}
		}
		_, opened := d.Open("x/none", os.O_RDWR, 0)
		_, stat := d.Stat("x/none")
		_, listed := d.List("none")
		for name, err := range map[string]error{"open": opened, "stat": stat, "list": listed, "rename": d.Rename("x/none", "x/d"), "link": d.Link("x/none", "x/d")} {
			if !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s of what is not there: %v", name, err)
			}
		}
		must(t, d.Rename("x/b", "x/a"), d.RemoveAll("x/none"), disk.ReplaceFile(d, "x/c", []byte("new")))
		for name, want := range map[string]string{"x/a": "two", "x/c": "new"} {
			if b, err := disk.ReadFile(d, name, 3); err != nil || string(b) != want {
				t.Errorf("%s is %q, %v, want %q", name, b, err, want)
			}
		}
		if _, err := disk.ReadFile(d, "x/a", 2); !errors.Is(err, disk.ErrTooLarge) {
			t.Errorf("a file larger than allowed: %v", err)
		}
		if list, err := d.List("x"); err != nil || len(list) != 2 {
			t.Errorf("%v, %v", list, err)
		}
		must(t, d.RemoveAll("x"))
		if _, err := d.Stat("x"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a removed directory: %v", err)
		}
	})
}

func TestAllocate(t *testing.T) {
	each(t, func(t *testing.T, d disk.Disk) {
		f, err := d.Open("f", os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		must(t, err)
		defer f.Close()
		must(t, f.Allocate(1000))
		if st, err := f.Stat(); err != nil || st.Size() != 1000 {
			t.Errorf("%v, %v", st, err)
		}
		b := make([]byte, 1000)
		if n, err := f.ReadAt(b, 0); n != 1000 || err != nil || !bytes.Equal(b, make([]byte, 1000)) {
			t.Errorf("%d bytes read, %v", n, err)
		}
	})
}

// counted counts the files that are open.
type counted struct {
	disk.Disk
	open *atomic.Int64
}

func (c counted) Open(name string, flag int, perm fs.FileMode) (disk.File, error) {
	f, err := c.Disk.Open(name, flag, perm)
	if err != nil {
		return nil, err
	}
	c.open.Add(1)
	return countedFile{f, c.open}, nil
}

type countedFile struct {
	disk.File
	open *atomic.Int64
}

func (f countedFile) Close() error {
	f.open.Add(-1)
	return f.File.Close()
}

func TestHandles(t *testing.T) {
	d := counted{memdisk.New(), new(atomic.Int64)}
	files := []disk.Kept{{Name: "a"}, {Name: "b"}, {Name: "c"}, {Name: "d"}}
	for i := range files {
		must(t, disk.WriteFile(d, files[i].Name, []byte(files[i].Name)))
	}
	open := func(when string, want int64) {
		t.Helper()
		if got := d.open.Load(); got != want {
			t.Errorf("%s %d files are open, want %d", when, got, want)
		}
	}
	c := disk.NewHandles(d, 2)
	var used []*disk.Handle
	for i := range files {
		h, err := c.Get(&files[i])
		must(t, err)
		used = append(used, h)
	}
	again, err := c.Get(&files[0])
	must(t, err)
	if again != used[0] {
		t.Error("a file that is open is opened again")
	}
	open("in use", 4)
	for _, h := range used {
		c.Put(h)
	}
	open("a in use and two idle", 3)
	must(t, d.RemoveAll("a"), disk.WriteFile(d, "a", []byte("A")))
	c.Renew(&files[0])
	b := make([]byte, 1)
	if _, err := again.File.ReadAt(b, 0); err != nil || b[0] != 'a' {
		t.Errorf("the file in use reads %q, %v", b, err)
	}
	h, err := c.Get(&files[0])
	must(t, err)
	if _, err := h.File.ReadAt(b, 0); err != nil || b[0] != 'A' {
		t.Errorf("the file opened anew reads %q, %v", b, err)
	}
	last, err := c.Get(&files[3])
	must(t, err)
	open("two of a, and two", 4)
	c.Put(again)
	open("the old a closed", 3)
	c.CloseAll()
	open("the two in use", 2)
	c.Put(h)
	c.Put(last)
	open("at the end", 0)
}
