// Package replication reads the rows that were inserted into published tables
// from a logical replication slot, in commit order, and confirms positions to
// it. It knows the slot, the publication and the protocol; it knows nothing of
// what a row means or where it goes.
//
// # Terms
//
// A slot remembers how far its reader has come: confirmed flush. Postgres keeps
// all WAL from the slot's restart LSN on. A transaction is decoded when its
// commit record is reached, wholly, and is sent again after a reconnection
// unless a position at or past its end was confirmed.
//
// # Life of a connection
//
// Dial connects and gathers Facts. Start begins streaming, which is what owns
// the slot: while it lasts, nobody else can read from it. A Stream has one
// goroutine, the only one that touches the connection: it reads, decodes,
// answers the server's questions and sends confirmations. Next takes what it
// has read; Confirm tells it what to confirm. Close sends the last
// confirmation and waits for the server to let the slot go.
//
// # Flow
//
// A batch leaves as soon as what was received is decoded; it is never held back
// for more. While the receiver is busy, the next batch grows behind it in the
// socket's buffer: that is all the batching there is, and it follows load. While
// a batch waits to be taken, nothing is read, so back-pressure reaches Postgres;
// status updates go on, so the connection lives.
//
// # Confirmation
//
// A status update carries three positions. The server takes flush for
// confirmation, and libraries fill it from another where it is zero; so all
// three are always the confirmed position.
//
// A keepalive's position may be confirmed only when no transaction is open and
// everything received earlier is settled. The stream passes it on as a segment
// without rows, in its place among the transactions: being settled in order then
// is the rule.
package replication
