// Package kafka is the sink that publishes to Apache Kafka with sarama's
// idempotent producer and keeps its marks in a compacted topic.
//
// # Two producers
//
// A session holds two, because sarama can't produce outside a transaction with
// a producer that has a transactional id:
//
//   - The event producer is idempotent, acks=all, one request in flight per
//     broker. Its first failure ends the session: see "Failure" below.
//   - The marks producer is transactional. Its InitProducerId, the first thing
//     Open does, fences every earlier session of the same transactional id, so
//     that the marks read after it can't change any more. Each Commit is one
//     small transaction on the pipeline's checkpoint topic.
//
// # Goroutines
//
// Besides sarama's own, a session has two, both started by Open; Close waits for
// them:
//
//   - drain is the only reader of the event producer's results and the only
//     caller of Settle;
//   - watch ends the session when acknowledgements stop under load, or when the
//     cluster does not answer while idle.
//
// Send runs in its caller's goroutine; only it uses the topics map and the
// per-partition counts. Send and Commit both use the marks producer, which a
// semaphore guards. Close takes the lock that Send holds, so that nobody sends
// to a producer that is being shut down.
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
// # Floors
//
// Floors prepare for a later version of walpost, which will find out after a
// crash which of the events it is about to send are in Kafka already, and skip
// them. This version writes floors but does not read records from them: after a
// crash it sends the events again that were not committed. Floors are written
// already so that the later version finds them. Only the topic ids beside them
// are used today.
//
// They are in a mark of the sink's own, named sink/kafka/floors and never shown
// to the caller. For every topic that the pipeline has written to it holds the
// topic's id and, per partition, an offset: the floor. Every record that this
// pipeline wrote for an event after the committed position has an offset at or
// above the floor. A floor may be too low, which costs reading, but never too
// high. Before the first write to a topic in a session, the floors of all its
// partitions are in the mark.
//
// A topic whose id is not the one in the mark was deleted and created again. The
// events in it are lost, so Send ends the session for good
// (kafka_lost_records). WriteMarks, with which `walpost init` writes a
// checkpoint, deletes the floors mark and so accepts the topics as they are. The
// later version will then not recognise events that were sent before init.
//
// The mark is one record and limited to marksMaxMessageBytes (1 MiB): about
// 90,000 partitions, or 8,000 topics of a few partitions each. Nothing but init
// removes a topic from it, not even the topic's deletion: if the topic came back,
// nobody could tell any more that it is another. A mark that does not fit ends
// the session for good and says so.
package kafka
