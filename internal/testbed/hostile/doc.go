// Package hostile has programs that are no agents, for scenarios of the test bed: hosts that mean
// harm, members of a group that mean harm, and one that only tastes. Each is bounded in time and
// in what it sends. It runs on Linux, in a network namespace of the bed.
//
//	flood    a stranger that also has a stolen key: forged, replayed, old, future and random
//	         datagrams, in the names and from the addresses of others, as fast as it can
//	member   an enrolled device: Validate Metadata for good content, epochs near the highest,
//	         claims and resignations in others' names; of the array it wants the lease, as the
//	         leader's successor
//	liar     an enrolled device that claims to lead and to hold 99 %, and gives nothing
//	deaf     an enrolled device that holds an issue, offers it to all who ask, and does not hear
//	         Validate Metadata
//	taste    an enrolled device that asks every holder of an issue for a run again and again, and
//	         says when it got it
//
// A program writes STATE/ready when it begins, and what it does to standard error: one line for
// each thing, and its counts at the end.
package hostile
