package catalogtest

import (
	"bytes"
	"context"
	"testing"
	"time"

	"freshet/internal/api"
	"freshet/internal/catalog"
)

func lanKey(n byte, starts time.Duration) catalog.LANKey {
	return catalog.LANKey{ID: [8]byte{n}, Secret: api.Secret(bytes.Repeat([]byte{n}, 32)), Starts: now.Add(starts)}
}

func testLANKeys(t *testing.T, e Engine) {
	check := func(what, group string, want []catalog.LANKey, wantRevoked int64) {
		t.Helper()
		keys, revoked, err := e.LANKeys(t.Context(), group)
		wantNil(t, err)
		if len(keys) != len(want) {
			t.Fatalf("%s: got %d keys, want %d", what, len(keys), len(want))
		}
		for i := range want {
			same(t, what+": id", keys[i].ID, want[i].ID)
			same(t, what+": secret", []byte(keys[i].Secret), []byte(want[i].Secret))
			same(t, what+": start", keys[i].Starts, want[i].Starts)
			same(t, what+": revoked", keys[i].Revoked, want[i].Revoked)
		}
		same(t, what+": devices revoked", revoked, wantRevoked)
	}
	check("no group", "lab", nil, 0)
	wantErr(t, e.SwapLANKeys(t.Context(), "lab", nil, []catalog.LANKey{lanKey(1, 0)}), catalog.ErrNotFound)
	wantNil(t, e.AddGroup(t.Context(), "lab", now))
	wantNil(t, e.AddGroup(t.Context(), "other", now))
	first := []catalog.LANKey{lanKey(9, 0), lanKey(2, time.Hour)}
	wantNil(t, e.SwapLANKeys(t.Context(), "lab", nil, first))
	check("first", "lab", first, 0)
	check("another group", "other", nil, 0)
	wantErr(t, e.SwapLANKeys(t.Context(), "lab", nil, []catalog.LANKey{lanKey(3, 0)}), catalog.ErrChanged)
	check("after a refusal", "lab", first, 0)

	second := []catalog.LANKey{first[1], lanKey(3, 2*time.Hour)}
	second[1].Revoked = 1
	wantNil(t, e.SwapLANKeys(t.Context(), "lab", first, second))
	check("second", "lab", second, 0)
	for n, group := range map[byte]string{7: "lab", 8: "other", 9: "lab"} {
		wantNil(t, e.AddDevice(t.Context(), catalog.Device{ID: device(n), Role: "device", Group: group, Key: digest("key"), Enrolled: now, Renewed: now}))
	}
	wantNil(t, e.RevokeDevice(t.Context(), device(7), now))
	check("one device revoked", "lab", second, 1)
	check("none of these", "other", nil, 0)

	wantNil(t, e.RevokeDevice(t.Context(), device(9), now))
	wantNil(t, e.RemoveGroup(t.Context(), "lab"))
	wantNil(t, e.AddGroup(t.Context(), "lab", now))
	check("a group made anew", "lab", nil, 2)

	errs := concurrently(4, func(n int) error {
		return e.SwapLANKeys(context.Background(), "other", nil, []catalog.LANKey{lanKey(byte(20+n), 0)})
	})
	done := 0
	for _, err := range errs {
		if err == nil {
			done++
		} else {
			wantErr(t, err, catalog.ErrChanged)
		}
	}
	same(t, "swaps of four at once", done, 1)
}
