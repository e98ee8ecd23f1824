// Package rules has no code of its own: its tests keep the whole module to the rules of the
// house. Each failure names the place, the rule and the reason.
//
// They read the source, so they need no build of what they judge:
//
//   - docs/architecture.md lists every package, and imports run upwards only (architecture_test.go);
//   - every package has one package comment (architecture_test.go);
//   - calls and imports that some files may not have (calls_test.go);
//   - the brains do no I/O and know no clock (brains_test.go);
//   - docs/settings.md is what the table of settings says (settings_test.go);
//   - words that belong to one machine stay out of the tree (words_test.go).
//
// Every rule is tried on a small module that breaks it, under testdata, so that a rule that has
// gone blind is found too. After a change of the settings:
//
//	go test ./internal/rules -run TestSettingsPage -rewrite
package rules
