// Package model explores, exhaustively within bounds, what a relay does between
// a Postgres and a Kafka that fail in every order.
//
// # What is real and what is simulated
//
// Real is everything of the relay, through its exported API alone: a Supervisor
// per process, with the pipelines, both deliveries, continuity, resumption,
// mapping, the Tracker and the checkpoint record below it. Around it stand the
// decorators of test/crash, whose points are where a goroutine waits for its
// turn. Simulated are the ends:
//
//   - Postgres: a history of committed transactions, and a slot with one holder.
//     A crash of the server sets the slot back to any position it had since the
//     last crash. A holder that the server takes for dead loses the slot without
//     noticing.
//   - Kafka: two partitions, marks, epochs that fence, transactions, and the
//     bytes that a killed process had in its sockets, which arrive at any later
//     time or never.
//   - Between them the session, with the floors and tails that the package doc
//     of sink/kafka describes. It is written anew here: what is proven of it is
//     proven of the rules, and of the relay that is told by them.
//
// Transactions that were rolled back are not simulated: a slot never yields them.
// Neither are the contents of topics of others, topics that come and go, nor
// promotions.
//
// # Choices
//
// All goroutines live in a synctest bubble. When all of them are blocked, the
// explorer lists what may happen next and lets one thing happen: a goroutine goes
// on from its point; a relay reads the next transaction; Kafka takes the next
// message of a session and acknowledges it; time passes, enough for every
// interval and for no timeout; or one of the faults that the scenario's budget
// allows (see budget). Time moves only then. Goroutines within one relay that
// don't wait at a point are not interleaved: they meet only in the flight, under
// its mutex.
//
// The search is depth first. States can't be copied, so it goes back by taking
// the same choices again in a new world, and fails if these lead elsewhere. A
// state that was seen before is not entered again. Two states are the same if
// everything outside is, and each living relay was told the same in its current
// life: then it knows the same. Orders that a relay can't depend on are left out
// of that (see known), as are moments at which nothing else can happen that would
// matter (see world.stopsAt and session.matters). One scenario does without these
// reductions.
//
// # Invariants
//
// At every step: nothing is confirmed or remembered past an event that is not in
// Kafka for all to see; the slot is not ahead of the checkpoint, which never goes
// back; nothing is published that was not committed, or otherwise than it was;
// nothing is sent again that was to be found, unless a hole before it on its key
// is being closed; no relay stops by itself. Exactly once: no event is visible
// twice, and no transaction in part. When everything is delivered: every event is
// there, and the last records of each key are in commit order. Such a state can be
// reached from every other without a further fault.
//
// One thing no idempotent delivery can help: records that arrive after a successor
// has read its tail. They are duplicates, and may even be the last of their key
// out of order. They are left out of both judgements.
//
// # Bounds
//
// By default histories of two transactions with up to two events, in up to two
// partitions, and one or two faults of the kinds in the scenario's name; in about
// a minute on one core. -bounds=large stops at every point, adds a transaction and
// takes hours in some scenarios: give -run and -timeout. With the race detector,
// which costs ten times as much, -bounds=small is the default.
//
// A failure prints the names of its steps, and the -schedule with which the same
// test replays them and shows the state after each. Kill points in it are those of
// test/crash, which the chaos runs use as failpoints.
package model
