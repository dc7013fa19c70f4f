// Package kafka is the sink that publishes to Apache Kafka with sarama's
// idempotent producer and keeps its marks in a compacted topic.
//
// # Two producers
//
// A session holds two, because sarama can't produce outside a transaction with
// a producer that has a transactional id:
//
//   - The event producer is idempotent, acks=all, one request in flight per
//     broker. It never retries past a failure: see "Failure" below.
//   - The marks producer is transactional. Its InitProducerId, the first thing
//     Open does, fences every earlier session of the same transactional id, so
//     that the marks read after it can't change any more. Each Commit is one
//     small transaction on the pipeline's checkpoint topic.
//
// # Goroutines
//
// Besides sarama's own, a session runs two, both started by Open and awaited
// by Close:
//
//   - drain is the only reader of the event producer's results and the only
//     caller of Settle;
//   - watch notices when nothing moves: a stall under load, an unreachable
//     cluster while idle.
//
// Send runs in its caller's goroutine and alone touches the topics map and the
// per-partition counts. Send and Commit meet in the marks producer, which one
// token guards. Close holds the lock that Send holds, so that nobody sends into
// a producer being shut down.
//
// # Life of a slot
//
// A slot is everything sarama needs to carry one message: the ProducerMessage,
// the encoders of key and value, the array of headers. Send takes one from the
// free list and fills it with references to the lent bytes; sarama encodes them
// into a request; the broker acknowledges; drain notes sequence number and
// offset, clears the references, puts the slot back and settles the message,
// whose bytes the relay may then reuse. A failed session's slots are left to
// the garbage collector: sarama may still hold them.
//
// # Failure
//
// sarama goes on after an error: the message is reported lost and later ones of
// its partition are delivered, which leaves a hole. So the first error of any
// kind ends the session: fail stores it, closes Done, cuts every connection and
// refuses new ones. From then on nothing is settled and nothing leaves, and
// because every retry of sarama's asks the dialer for its backoff, what is left
// inside sarama unwinds at once. The relay starts again from its settled prefix.
//
// # Floors
//
// A successor has to find out which of the events it is about to send are in
// Kafka already. For that the sink keeps one mark of its own, named
// sink/kafka/floors and never shown to the caller: for every topic it has
// written to, the topic's id and per partition an offset, the floor, such that
// every record of this pipeline at or above the marks' position lies at or
// above it. A floor may be too low, which costs reading, but never too high.
// Before the first write to a topic in a session the floors of all its
// partitions are in the record.
package kafka
