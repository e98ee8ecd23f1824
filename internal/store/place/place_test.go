package place

import (
	"testing"

	"pgregory.net/rapid"

	"freshet/internal/content"
)

const mib = 1 << 20

// TestSegments: every byte of a content lies where its file lies, in one segment of its run.
func TestSegments(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var files []content.File
		for range rapid.IntRange(1, 40).Draw(t, "files") {
			size := rapid.OneOf(rapid.Int64Range(0, 3*mib), rapid.Int64Range(0, 9)).Draw(t, "size")
			files = append(files, content.File{Size: size, Executable: rapid.Bool().Draw(t, "executable")})
		}
		m := &content.Manifest{Files: files}
		l := content.NewLayout(files)
		p := Of(m, l)
		covered := make([]int64, len(p.Files))
		for n := range l.Runs() {
			r := l.Run(n)
			segs, count := p.Segments(r)
			at := r.Offset
			for _, s := range segs[:count] {
				for i := l.FileAt(at); i < l.Files() && l.FileOffset(i) < at+int64(s.Len); i++ {
					slot, off := p.Slot(i)
					if l.FileSize(i) > 0 && (slot != s.Slot || off-s.Off != l.FileOffset(i)-at) {
						t.Fatalf("run %d: file %d begins at %d of slot %d, the segment %+v is byte %d", n, i, off, slot, s, at)
					}
				}
				covered[s.Slot] += int64(s.Len)
				at += int64(s.Len)
			}
			if at != r.Offset+int64(r.Len) {
				t.Fatalf("run %d: %d bytes of %d", n, at-r.Offset, r.Len)
			}
		}
		for slot, f := range p.Files {
			if covered[slot] != f.Size {
				t.Errorf("%q: %d bytes of %d are in a run", f.Name, covered[slot], f.Size)
			}
		}
	})
}

func TestFiles(t *testing.T) {
	files := []content.File{{Size: 5}, {Size: mib, Executable: true}, {}, {Size: mib - 1, Executable: true}, {Size: 2 * mib}}
	p := Of(&content.Manifest{Files: files}, content.NewLayout(files))
	want := []File{{"f/000001", mib, 0o755}, {"f/000004", 2 * mib, 0o644}, {"small", mib + 4, 0o600}}
	if len(p.Files) != len(want) {
		t.Fatalf("%+v, want %+v", p.Files, want)
	}
	for i, f := range p.Files {
		if f != want[i] {
			t.Errorf("slot %d is %+v, want %+v", i, f, want[i])
		}
	}
	if slot, off := p.Slot(3); slot != 2 || off != 5 {
		t.Errorf("file 3 is at %d of slot %d", off, slot)
	}
	only := files[2:3]
	if p := Of(&content.Manifest{Files: only}, content.NewLayout(only)); len(p.Files) != 0 {
		t.Errorf("an empty file lies in %+v", p.Files)
	}
}
