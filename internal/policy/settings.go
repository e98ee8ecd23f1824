package policy

import "time"

// Value is one resolved setting.
type Value struct {
	number   int64
	text     string // of the kinds that are text
	Provider Provider
	At       string // where it was written; "" for a default
}

// Settings are resolved values, each with its provider. The zero value holds the defaults.
// Settings are copied, never changed.
type Settings struct {
	values [keys]Value
}

// value returns what k is, which is its default when no layer said anything.
func (s Settings) value(k key) Value {
	if v := s.values[k]; v.Provider != "" {
		return v
	}
	return Value{number: table[k].Default, Provider: Default}
}

func (s Settings) number(k key) int64 { return s.value(k).number }

func (s Settings) bool(k key) bool { return s.number(k) != 0 }

func (s Settings) seconds(k key) time.Duration { return time.Duration(s.number(k)) * time.Second }

// DownloadMode says which devices may exchange content.
func (s Settings) DownloadMode() Mode { return Mode(s.number(downloadMode)) }

// MinFileSizeToCache is the smallest content to exchange, in bytes; 0 sets no limit.
func (s Settings) MinFileSizeToCache() int64 { return s.number(minFileSizeToCache) * mb }

// MinRAMAllowedToPeer is the least memory of a device that exchanges content, in bytes.
func (s Settings) MinRAMAllowedToPeer() int64 { return s.number(minRAMAllowedToPeer) * gb }

// MinDiskSizeAllowedToPeer is the least capacity of the cache's disk, in bytes.
func (s Settings) MinDiskSizeAllowedToPeer() int64 { return s.number(minDiskSizeAllowedToPeer) * gb }

// MaxCacheAge is how long content stays after its last use; 0 sets no limit.
func (s Settings) MaxCacheAge() time.Duration { return s.seconds(maxCacheAge) }

// UploadSlots is how many peers the device sends to at the same time.
func (s Settings) UploadSlots() int { return int(s.number(uploadSlots)) }

// MaxPeers is how many peers one download is connected with.
func (s Settings) MaxPeers() int { return int(s.number(maxPeers)) }

// PieceBuffers is the number of piece buffers of an agent, one MiB each.
func (s Settings) PieceBuffers() int { return int(s.number(pieceBuffers)) }

// JoinInterval is the time between two joins of an array for the same content.
func (s Settings) JoinInterval() time.Duration { return s.seconds(joinInterval) }

// WholeFileCheck says whether each file's whole SHA-256 is taken besides its pieces'.
func (s Settings) WholeFileCheck() bool { return s.bool(wholeFileCheck) }

// PlainSwarm says whether the swarm protocol runs without TLS, in a laboratory.
func (s Settings) PlainSwarm() bool { return s.bool(plainSwarm) }

// LANDatagrams says whether the device speaks with its subnet by datagrams.
func (s Settings) LANDatagrams() bool { return s.bool(lanDatagrams) }

// LANPort is the UDP port of these datagrams.
func (s Settings) LANPort() uint16 { return uint16(s.number(lanPort)) }

// LeaderWeight is the device's weight in elections; false when its kind decides.
func (s Settings) LeaderWeight() (weight uint8, set bool) {
	n := s.number(leaderWeight)
	return uint8(max(n, 0)), n != Unset
}

// State is what a setting says of the device: auto, yes or no.
type State string

// Auto leaves it to the agent to find out.
const Auto State = "auto"

// Or returns what is set, or else what was found.
func (s State) Or(found bool) bool {
	if s == Auto {
		return found
	}
	return s == "yes"
}

// OnBattery says whether the device runs on its battery.
func (s Settings) OnBattery() State { return State(s.word(onBattery)) }

// Metered says whether the device's network is metered.
func (s Settings) Metered() State { return State(s.word(metered)) }

// MetadataValidation says what is done where a content's files are not those that a management
// system expects: enforce, report or off.
func (s Settings) MetadataValidation() string { return s.word(metadataValidation) }

// MetadataMatch says how far expected metadata speaks for all of a content: exact or subset.
func (s Settings) MetadataMatch() string { return s.word(metadataMatch) }

// MetadataDirectory is where expected metadata lies as files; "" for nowhere.
func (s Settings) MetadataDirectory() string { return s.value(metadataDirectory).text }

func (s Settings) word(k key) string { return table[k].Words[s.number(k)] }

// Shown is a setting as people and programs see it. Value and Default are a number, a bool,
// text, or nil for a setting that is not set.
type Shown struct {
	Name        string   `json:"name"`
	Value       any      `json:"value"`
	Unit        string   `json:"unit,omitempty"`
	Provider    Provider `json:"provider"`
	At          string   `json:"at,omitempty"`
	Default     any      `json:"default"`
	Description string   `json:"description"`
}

// View returns every setting in the order of the table.
func (s Settings) View() []Shown {
	out := make([]Shown, 0, keys)
	for k := range table {
		def, v := &table[k], s.value(key(k))
		out = append(out, Shown{
			Name: def.Name, Value: def.shown(v), Unit: def.Unit,
			Provider: v.Provider, At: v.At,
			Default: def.typed(def.Default), Description: def.Help,
		})
	}
	return out
}

// shown returns a value as the type that JSON should show.
func (s *Setting) shown(v Value) any {
	switch {
	case !s.Kind.isText():
		return s.typed(v.number)
	case v.text == "":
		return nil
	}
	return v.text
}

// typed returns v as the type that JSON should show.
func (s *Setting) typed(v int64) any {
	switch {
	case v == Unset:
		return nil
	case s.Kind == Bool:
		return v != 0
	case s.Kind == Word:
		return s.Words[v]
	}
	return v
}
