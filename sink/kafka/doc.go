// Package kafka is the sink that publishes to Apache Kafka with sarama and keeps
// its marks in a compacted topic. It is of either kind, as Config.Atomic says; a
// ledger holds what the kinds do differently.
//
// # Continuous: two producers
//
// A continuous session holds two, because sarama can't produce outside a transaction with
// a producer that has a transactional id:
//
//   - The event producer is idempotent, acks=all, one request in flight per
//     broker. Its first failure ends the session: see "Failure" below.
//   - The marks producer is transactional. Its InitProducerId, the first thing
//     Open does, fences every earlier session of the same transactional id, so
//     that the marks read after it can't change any more. Each Commit is one
//     small transaction on the pipeline's checkpoint topic.
//
// # Atomic: one producer
//
// The producer of an atomic session has the same transactional id, so that
// sessions of both kinds fence one another. Its InitProducerId comes before the
// marks are read; it also ends what a predecessor left open. The first message
// after a commit begins a transaction. Commit gives the marks to the producer
// right behind the events, without waiting for acknowledgements, and commits:
// what drain has not settled by then is settled before Commit returns. What was
// sent and not committed is aborted by Close, by the successor, or by the
// coordinator after TransactionTimeout. Until then it holds the last stable
// offset of its partitions back.
//
// A consumer sees a transaction when the coordinator has written its markers to
// all partitions, soon after Commit has returned. One that reads several
// partitions may meet them at different moments.
//
// # Goroutines
//
// Besides sarama's own, a session has three, all started by Open; Close waits for
// them:
//
//   - drain is the only reader of the event producer's results and the only
//     caller of Settle;
//   - watch ends the session when acknowledgements stop under load, or when the
//     cluster does not answer while idle;
//   - the dialer's beats, see "Pauses".
//
// Send runs in its caller's goroutine; only it uses the topics map, the
// per-partition counts and the tails. What it skips it hands over to drain. In a
// continuous session Send and Commit both use the marks producer, which a
// semaphore guards; in an atomic one Commit takes the lock that Send holds. Close
// takes it, too, so that nobody sends to a producer that is being shut down.
//
// # Life of a carrier
//
// A carrier is everything sarama needs to carry one message: the ProducerMessage,
// the encoders of key and value, the array of headers. Send takes one from the
// free list and fills it with references to the lent bytes; sarama encodes them
// into a request; the broker acknowledges; drain notes sequence number and
// offset, settles the message, whose bytes the relay may then reuse, clears the
// references and puts the carrier back. A failed session's carriers are left to
// the garbage collector: sarama may still hold them.
//
// # Failure
//
// sarama goes on after an error: it reports the message as failed and delivers
// later ones of the same partition, which would leave a gap. So the first error
// of any kind ends the session: fail stores it, closes Done, closes every
// connection and refuses new ones. From then on nothing is settled and nothing
// is sent. All retries of sarama take their backoff from the dialer, which is
// zero by then, so that the messages still inside sarama fail at once. The relay
// starts again after the last message up to which all are settled.
//
// In an atomic session the coordinator's refusals are such errors as well. A
// producer is never used again after one, though sarama would: the outcome of a
// commit is unknown until the next session has read the marks. A producer is
// fenced by a successor, or by the coordinator when its transaction was open for
// longer than TransactionTimeout; the age of the transaction tells which.
//
// # Pauses
//
// A process that was stopped, or whose machine was suspended, may wake up when a
// successor has long taken over. Its idempotent producer is not fenced and would
// send what is queued, thousands of messages, after the successor's. So the dialer
// beats, and before every write to a connection the last beat must be recent, on
// the wall clock and on the monotonic one. If it is older than Config.PauseLimit,
// the dialer is cut for good, whichever goroutine was the first to run, and the
// session ends; to open another one the relay must own the slot. The limit is well
// below the time after which Postgres gives the slot of a silent relay away
// (wal_sender_timeout, 10 s). What goes out after a pause is what the sockets
// hold, and at most writeChunk more of a request that was being written. That
// can complete one request per broker: one batch of each partition.
//
// # Floors
//
// Floors say where to look, after a crash, for events that were published but not
// committed. They are in a mark of the sink's own, named sink/kafka/floors and
// never shown to the caller. For every topic that the pipeline has written to it
// holds the topic's id and, per partition, an offset: the floor. Every record that
// this pipeline wrote for an event that is not committed has an offset at or above
// the floor. A floor may be too low, which costs reading, but never too high.
// Before the first write to a topic in a session, the floors of all its partitions
// are in the mark; in an atomic session they get there with the transaction that
// writes to it first. Floors that have only risen go with a commit at most once a
// second there.
//
// Send is never given an event that is committed, although the source may give it
// again: see [sink.Session].
//
// A topic whose id is not the one in the mark was deleted and created again. The
// events in it are lost, so Send ends the session for good
// (kafka_lost_records). WriteMarks, with which `walpost init` writes a
// checkpoint, deletes the floors mark and so accepts the topics as they are.
// Events that were published before init are then not recognised.
//
// The mark is one record and limited to marksMaxMessageBytes (1 MiB): about
// 90,000 partitions, or 8,000 topics of a few partitions each. Nothing but init
// removes a topic from it, not even the topic's deletion: if the topic came back,
// nobody could tell any more that it is another. A mark that does not fit ends
// the session for good and says so.
//
// # Tails
//
// Before a session's first message to a partition that is in its predecessor's
// floors mark, Send reads the partition's tail: read_committed, from the floor to
// the end at that moment. An event that is in it with the same source, position
// and id is not sent but settled as [sink.Duplicate]. The same position with
// another id is another history: the session ends for good (history_diverged). A
// floor above the partition's end says that acknowledged records are lost
// (kafka_lost_records); retention may have raised the start of the log above the
// floor, which is nothing unusual.
//
// The tail is a set, because predecessors may have left holes: the newest
// position in it says nothing of earlier ones. From the first event of a key on
// that is missing, or whose last record comes before that of an earlier event,
// every event of the key is sent again; earlier events that are committed and
// don't come again count, too. So the last records of each key are in the order
// of their positions, however many crashes there were.
//
// When the messages are past the newest position in the tail, it is dropped, and
// nothing is looked up any more. Until then the partition's floor stays: a
// message that is sent now gets a record above those of later events, which are
// in the tail.
//
// Records may be elsewhere than their events belong now. If partitions were added
// to a topic since the mark was written, all of its partitions make one tail. If
// the routing was another one ([Config.Routing] is in the mark too), all topics in
// the mark make one, and Send reads it before anything else; then an event may
// have another id as well, and is sent. The mark keeps saying so ("spread") until
// everything published before is committed, since a session may end before that.
// Order is that of a key within one partition: where an event has records in
// several, the one where it belongs now decides.
//
// Newest reads all these tails at once, of every topic in the mark, and keeps
// only a position. Where all topics are read, one that does not exist is passed
// over with a warning: what was in it can't be looked at. If it held events that
// are not committed, they are published again, and Newest does not know of them. A
// topic that was created again or has lost records ends the session there as well.
//
// Not recognised, and so published again, are: events whose records retention has
// removed; those whose records reach the broker only after the tail was read, such
// as the bytes that a killed or paused process had in its sockets; and, in a compacted topic, events whose
// record was compacted away because their key has a later one, with all later
// ones of the key: to a successor the first of them is missing. (Such topics need
// Config.CompactedTopics. What is committed never comes again.)
// Reading needs the READ permission on the topic. A transaction that another
// producer holds open there is waited for, up to StallTimeout.
package kafka
