// Package checkpoint knows how far a pipeline has come: in memory, as the
// events in flight (Tracker), and durably, as what a successor must know to
// take over or to refuse to (Record). It does no I/O and knows neither where
// events come from nor how they are sent.
//
// Terms:
//
//   - An event is in flight from Add until the settled prefix has passed it.
//   - It is settled when the sink holds it durably.
//   - The settled prefix is the longest run of events, from the session's
//     first, that are all settled. Only it counts: the highest acknowledged
//     event says nothing about those before it.
//   - An end is an LSN that may be confirmed to Postgres once the prefix has
//     reached the events that were added before it: the end of a transaction,
//     or a position up to which the server had nothing more.
package checkpoint
