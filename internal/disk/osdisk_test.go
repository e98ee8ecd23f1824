package disk

import (
	"bytes"
	"testing"
)

func FuzzParseMarker(f *testing.F) {
	f.Add(appendMarker(nil))
	f.Add([]byte(markerText + "2\n"))
	f.Add([]byte(markerText + "01\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := parseMarker(b); err == nil && !bytes.Equal(b, appendMarker(nil)) {
			t.Errorf("marker %q is taken", b)
		}
	})
}
