// Package freshness is the brain that keeps stale content out: one for each device. It has no
// I/O, no clock and no goroutine: the shell calls one method per kind of event with the time
// since the start, appends the actions that it returns to a slice of its own, does them in
// order, and calls OnTick when Next says. The simulator runs the same brain.
//
// # Downloads (design sections 3 and 7)
//
//   - A manifest is taken when it is believed (see [Believe]) and, where metadata is expected,
//     fits it. A manifest without hashes of the metadata's kind is taken on trial: nothing is
//     delivered before its bytes were compared.
//   - One that does not fit is dropped, and its digest not taken again for this download.
//   - If catalog, publisher or DP vouch for it, the DP is asked to make sure, once a round; the
//     catalog is told. The DP's manifest fits (then the download starts again), fits without
//     being the catalog's (then this download takes it from DP and cache host alone), or its
//     bytes do not fit (then the round has failed).
//   - If only a device vouches for it, or a device names another manifest than the one that is
//     believed, the subnet is told once (Validate Metadata), every peer of another subnet or
//     behind blocked broadcasts singly, with an acknowledgement within 2 s; who does not give
//     it is left out. Who offers the digest again 5 s later is left out and banned.
//   - Five failed rounds (after 10 s, 40 s, 160 s, 10 min) pause the download, with the reason of
//     the last. It is tried again each hour, and at once when other metadata is expected or the
//     catalog has a higher generation.
//   - A higher generation in mid-download starts it again; not where expected metadata fits,
//     which wins for this download.
//
// # Holders (design section 7, step 4)
//
//   - A hint, or a generation in a reply, is a reason to check, never to delete. The entry goes
//     into quarantine for ten minutes at most, restarts included. A leader in mid-download keeps
//     its place for 2 s.
//   - Content Policy is asked anew, then the device's own expected metadata. Stale is: (the
//     catalog's generation is higher, or the own metadata is what the hint wants, or it rejects
//     the entry) and neither names the entry.
//   - What is stale goes at once; its pieces stay a day as stock. Until it is gone it stays in
//     quarantine, over restarts. Anything else is served again.
//   - The same question on a content is checked once in ten minutes. A hint that a source refutes
//     mutes its sender for the content for an hour, the sixth for everything.
//   - Only a hint that came singly is acknowledged.
//
// # Deviations from Nomad's description
//
//   - Nothing is deleted on a message: any device could wipe a subnet. Receivers ask sources
//     of their own.
//   - Where a device's metadata is older than the content, it waits; it does not make others
//     drop what is right.
//   - Both SHA-1 and SHA-256 are compared, whichever the metadata names, so that manifests made
//     before are not false alarms.
//   - A manifest at the DP is made anew only when it does not fit, and kept until the new one is
//     there.
//   - Who does not comply is left out and banned; Nomad takes no explicit action.
//   - Validation is on by default.
//
// # Decisions where the design is silent
//
//   - Stale needs an answer of Content Policy. While it is silent the entry is in quarantine, and
//     after ten minutes served again: the own metadata alone may be the old one.
//   - A device that claims a higher generation is a reason to ask the catalog (once a minute),
//     not to tell the device that it is wrong.
//   - A manifest named by another device while ours is believed does not start the download
//     again: it would only come to the same.
//   - A hint that nobody could confirm mutes its sender for the content, and does not count
//     towards six: the services may be out of reach.
//   - The manifest's giver is not blamed for what the catalog or a publisher vouch for, and
//     devices that have what the catalog names are neither told nor banned: their sources would
//     refute the hint, and the one who has old metadata would be the one to sow doubt.
//   - Metadata that cannot be read pauses a download under enforce: nobody knows what fits. What
//     was read before goes on to hold meanwhile.
//   - Under report and off the device sends no hints and its metadata is no source; hints that it
//     receives are checked against the catalog all the same.
//
// # Invariants
//
//   - Under enforce nothing is used, and nothing delivered, that differs from expected metadata.
//   - The generation of a content never falls.
//   - Every quarantine ends in Release or Retire within ten minutes; Retire is asked for at each
//     start until it is done.
//   - Retire follows an answer of Content Policy that does not name the manifest.
//   - Memory is bounded by the number of downloads and the constants above it, whatever comes in.
package freshness
