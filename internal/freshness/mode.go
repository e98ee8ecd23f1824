package freshness

import "fmt"

// Mode is the setting metadataValidation.
type Mode uint8

const (
	Enforce Mode = iota // what does not fit is not used
	Report              // what does not fit is used, and reported
	Off                 // nothing is compared with expected metadata
)

// ParseMode reads "enforce", "report" or "off".
func ParseMode(s string) (Mode, error) {
	for m := Enforce; m <= Off; m++ {
		if m.String() == s {
			return m, nil
		}
	}
	return 0, fmt.Errorf("freshness: metadataValidation %q is not known; use enforce, report or off", s)
}

// String returns the setting's value.
func (m Mode) String() string {
	switch m {
	case Enforce:
		return "enforce"
	case Report:
		return "report"
	case Off:
		return "off"
	}
	return fmt.Sprintf("mode %d", uint8(m))
}

// compatibilityValidation is the bit of Nomad's CompatibilityFlags that turns validation on.
const compatibilityValidation = 0x40000000

// FromCompatibilityFlags is the mode that an imported CompatibilityFlags number stands for.
func FromCompatibilityFlags(flags uint32) Mode {
	if flags&compatibilityValidation != 0 {
		return Enforce
	}
	return Off
}
