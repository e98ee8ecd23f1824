package main

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"testing"

	"freshet/internal/demo"
)

// TestDemoAcrossSites: where devices of other sites are handed out, what they send crosses the
// WAN too: it is told, part of the sites' figures, and counted alike at both ends.
func TestDemoAcrossSites(t *testing.T) {
	ln, err := net.Listen("tcp", "127.1.0.1:0")
	if err != nil {
		t.Skip("one site alone: this system has no loopback address but 127.0.0.1")
	}
	ln.Close()
	src := t.TempDir()
	const size = 24 << 20
	if err := os.WriteFile(filepath.Join(src, "f"), make([]byte, size), 0o644); err != nil {
		t.Fatal(err)
	}
	p := startProcess(t, "demo", src, "--devices", "4", "--sites", "2", "--mode", "2", "--in-turn", "--wan", "128Mbit", "--json")
	if err := <-p.done; err != nil {
		t.Fatal(err)
	}
	var r demo.Report
	if err := json.Unmarshal(p.out.Bytes(), &r); err != nil || !r.Verified || len(r.WANBytesPerSite) != 2 || len(r.BytesFromOtherSitesPerSite) != 2 {
		t.Fatalf("report %s, %v", &p.out, err)
	}
	if r.BytesFromOtherSites == 0 || r.BytesFromOtherSites != r.BytesFromOtherSitesPerSite[0]+r.BytesFromOtherSitesPerSite[1] {
		t.Errorf("%d bytes from other sites, by site %v; want some", r.BytesFromOtherSites, r.BytesFromOtherSitesPerSite)
	}
	var devices, fromOrigin int64
	for _, d := range r.Devices {
		devices, fromOrigin = devices+d.BytesFromOtherSites, fromOrigin+d.BytesFromOrigin
	}
	if devices != r.BytesFromOtherSites {
		t.Errorf("the devices have %d bytes from other sites, together it should be %d", devices, r.BytesFromOtherSites)
	}
	const uncounted = 1 << 20 // may still be so at the distribution point when the last device is done
	if r.WANBytes+uncounted < fromOrigin+r.BytesFromOtherSites {
		t.Errorf("%d bytes over the WAN, but %d from the origin and %d from other sites", r.WANBytes, fromOrigin, r.BytesFromOtherSites)
	}
}

func TestDemoRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	writeFiles(t, filepath.Dir(file), map[string]string{"file": "x"})
	for name, args := range map[string][]string{
		"mode":         {"--mode", "7"},
		"rate":         {"--wan", "fast"},
		"no directory": {file},
	} {
		if status, _, stderr := freshet(t, append([]string{"demo"}, args...)...); status != exitUsage {
			t.Errorf("%s: status %d, %s", name, status, stderr)
		}
	}
}
