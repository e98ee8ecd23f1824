package config

import (
	"errors"
	"fmt"
	"strconv"

	"freshet/internal/freshness"
	"freshet/internal/policy"
)

// compatibilityFlags is Nomad's setting. Its bit for the validation of metadata stands for
// metadataValidation; its other bits are for what freshet does otherwise, and are passed over.
const (
	compatibilityFlags = "CompatibilityFlags"
	metadataValidation = "metadataValidation"
)

// imported puts settings of ours in the place of those of other products. They stand before the
// others: what is said in freshet's own word wins.
func imported(l policy.Layer) (policy.Layer, error) {
	out := policy.Layer{Provider: l.Provider}
	var own []policy.Entry
	var errs []error
	for _, e := range l.Entries {
		if e.Name != compatibilityFlags {
			own = append(own, e)
			continue
		}
		flags, err := strconv.ParseUint(e.Value, 0, 32)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %s = %q: must be a number of 32 bits, decimal or with 0x", where(l, e), e.Name, e.Value))
			continue
		}
		out.Entries = append(out.Entries, policy.Entry{Name: metadataValidation, Value: freshness.FromCompatibilityFlags(uint32(flags)).String(), At: e.At})
	}
	out.Entries = append(out.Entries, own...)
	return out, errors.Join(errs...)
}

// where says where an entry stands.
func where(l policy.Layer, e policy.Entry) string {
	if e.At == "" {
		return string(l.Provider)
	}
	return e.At
}
