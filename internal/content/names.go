package content

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits of names (design section 4.1).
const (
	MaxName  = 4096 // bytes of a name
	MaxPart  = 255  // bytes of a part between slashes
	MaxDepth = 64   // parts of a name
)

// CheckName reports why name may not name a file of a content, or nil. A name is relative,
// /-separated UTF-8 and means the same file on every system of a mixed fleet: nothing that
// climbs, and nothing that Windows refuses, reserves or changes.
func CheckName(name string) error {
	if err := checkName(name, 0); err != nil {
		return fmt.Errorf("content: %w", err)
	}
	return nil
}

// checkName checks a name whose first known bytes are folders, each with its slash, of a
// name that was checked before.
func checkName(name string, known int) error {
	if err := nameCause(name, known); err != nil {
		return fmt.Errorf("name %q %w", clip(name), err)
	}
	return nil
}

// nameCause says what is wrong with a name, without the name.
func nameCause(name string, known int) error {
	if len(name) > MaxName {
		return fmt.Errorf("has %d bytes, more than %d", len(name), MaxName)
	}
	if depth := strings.Count(name, "/") + 1; depth > MaxDepth {
		return fmt.Errorf("has %d parts, more than %d", depth, MaxDepth)
	}
	if !utf8.ValidString(name[known:]) {
		return errors.New("is not valid UTF-8")
	}
	for rest, more := name[known:], true; more; {
		var part string
		part, rest, more = strings.Cut(rest, "/")
		if err := checkPart(part); err != nil {
			return err
		}
	}
	return nil
}

// checkPart checks what stands between two slashes.
func checkPart(part string) error {
	if part == "" {
		return errors.New("has an empty part; names are relative, with single slashes")
	}
	if len(part) > MaxPart {
		return fmt.Errorf("has a part of %d bytes, more than %d", len(part), MaxPart)
	}
	if part == "." || part == ".." {
		return fmt.Errorf("has the part %q", part)
	}
	for i, r := range part {
		if refused(r) {
			return fmt.Errorf("holds the character %q at byte %d of the part %q", r, i, part)
		}
	}
	if last := part[len(part)-1]; last == '.' || last == ' ' {
		return fmt.Errorf("has the part %q, which ends in a dot or blank: Windows drops it", part)
	}
	if isReserved(part) {
		return fmt.Errorf("has the part %q, which Windows reserves for a device", part)
	}
	return nil
}

// refused reports whether no name may hold r: control characters (C0, DEL, C1), and what
// separates or is refused on Windows.
func refused(r rune) bool {
	switch r {
	case '\\', ':', '<', '>', '"', '|', '?', '*':
		return true
	}
	return r < 0x20 || r >= 0x7f && r < 0xa0
}

// isReserved reports whether Windows takes part for a device: any letter case, whatever
// follows a dot, and blanks before the dot.
func isReserved(part string) bool {
	switch part[0] | 0x20 { // most names end here
	case 'a', 'c', 'l', 'n', 'p':
	default:
		return false
	}
	base, _, _ := strings.Cut(part, ".")
	base = strings.TrimRight(base, " ")
	for _, device := range [...]string{"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"} {
		if strings.EqualFold(base, device) {
			return true
		}
	}
	if len(base) < 4 || !strings.EqualFold(base[:3], "COM") && !strings.EqualFold(base[:3], "LPT") {
		return false
	}
	switch base[3:] {
	case "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "¹", "²", "³":
		return true
	}
	return false
}

// clip shortens a name for an error.
func clip(name string) string {
	if len(name) <= MaxPart {
		return name
	}
	return name[:MaxPart] + "…"
}

// checkPaths reports two files or folders that are one on a system that ignores letter case,
// and a file that is also a folder. Files are in strict byte order, so that all names below
// one folder stand together and each folder is met once.
func checkPaths(files []File) error {
	seen := make(map[string]int, len(files)+len(files)/8) // folded path → a file that has it
	prev := ""
	for i := range files {
		name := files[i].Name
		folded := foldName(name)
		met := strings.Count(name[:commonFolder(prev, name)], "/") // folders shared with prev
		for at := range len(folded) {
			if folded[at] != '/' {
				continue
			}
			if met > 0 {
				met--
				continue
			}
			if err := addPath(seen, folded[:at], files, i); err != nil {
				return err
			}
		}
		if err := addPath(seen, folded, files, i); err != nil {
			return err
		}
		prev = name
	}
	return nil
}

// addPath adds a folded path that files[i] brings.
func addPath(seen map[string]int, path string, files []File, i int) error {
	if j, dup := seen[path]; dup {
		return fmt.Errorf("names %q and %q clash where letter case is ignored, or one is a folder of the other; rename one", clip(files[j].Name), clip(files[i].Name))
	}
	seen[path] = i
	return nil
}

// commonFolder returns the length of the longest common prefix of a and b that ends in '/'.
func commonFolder(a, b string) int {
	end := 0
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			break
		}
		if a[i] == '/' {
			end = i + 1
		}
	}
	return end
}

// foldName maps names that differ only in letter case (Unicode simple folding) to one.
func foldName(name string) string {
	for i := range len(name) {
		if name[i] >= utf8.RuneSelf {
			return strings.Map(foldRune, name)
		}
	}
	return strings.ToLower(name)
}

// foldRune returns the smallest rune of r's case orbit, ASCII letters in lower case.
func foldRune(r rune) rune {
	if r < utf8.RuneSelf {
		return lowerASCII(r)
	}
	least := r
	for next := unicode.SimpleFold(r); next != r; next = unicode.SimpleFold(next) {
		least = min(least, next)
	}
	return lowerASCII(least)
}

func lowerASCII(r rune) rune {
	if r >= 'A' && r <= 'Z' {
		return r + 'a' - 'A'
	}
	return r
}
