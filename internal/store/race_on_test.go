//go:build race

package store

// raceEnabled thins out the tests that try every step: the race detector makes SQLite slow
// and finds nothing in them that others do not show.
const raceEnabled = true
