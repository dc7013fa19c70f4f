package kafka

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"
)

// Config says where the sink publishes, and its timeouts. The zero value of
// a field means its default.
type Config struct {
	// Brokers are the addresses (host:port) to learn the cluster from. At least
	// one is needed.
	Brokers []string

	// Pipeline names the pipeline; the defaults below are made from it. Needed.
	Pipeline string

	// ClientID names this client in the brokers' logs and quotas.
	// Default walpost.<pipeline>.
	ClientID string

	// Atomic makes the sink atomic: events and marks become visible together,
	// in Kafka transactions. A pipeline may change it between sessions.
	Atomic bool

	// TransactionTimeout is how long a transaction of an atomic session may be
	// open before the coordinator aborts it, which ends the session. Until then
	// a relay that died hides from read_committed consumers what others write
	// behind its records. It must not exceed the brokers'
	// transaction.max.timeout.ms (15 minutes by default). Default 60s.
	TransactionTimeout time.Duration

	// TransactionalID is that of the marks producer, or of an atomic session's
	// only one. Two processes with the
	// same id fence one another, so that a pipeline's marks have one writer.
	// Default walpost.<pipeline>.
	TransactionalID string

	// CheckpointTopic holds the marks: compacted, one partition, written by
	// this pipeline alone. On a shared one another pipeline's open transaction
	// would hide this one's marks. Default walpost.checkpoint.<pipeline>.
	CheckpointTopic string

	// MaxMessageBytes bounds a batch of events, and so an event, as the broker
	// counts it. It must not exceed the max.message.bytes of any topic written
	// to: the broker refuses a batch as a whole. A message that would not fit
	// is rejected before it is sent. The marks have a limit of their own, but for
	// those of an atomic session, which go through the same producer.
	// Default 1048588, which is the broker's.
	MaxMessageBytes int

	// Topics says what to do about a topic that does not exist.
	Topics TopicDefaults

	// CompactedTopics permits writing events to topics whose cleanup.policy
	// contains compact; otherwise Send refuses them. Compaction removes the
	// records by which a successor recognises what is published already, so some
	// events come twice (see "Tails" in the package doc), and a consumer that
	// lags misses all but the newest of a key's events. Default false.
	CompactedTopics bool

	// Routing is a fingerprint of whatever decides which topic and partition an
	// event goes to, and its id. If a predecessor had another one, what it has
	// published and not committed is looked up in all topics of the pipeline.
	// Default: unknown, taken for unchanged.
	Routing string

	// DialTimeout bounds connecting to one broker. Default 3s.
	DialTimeout time.Duration

	// RequestTimeout bounds one request, from writing it to having its
	// response; half of it is what a broker is given to replicate a batch.
	// Default 10s.
	RequestTimeout time.Duration

	// StallTimeout ends a session when messages are outstanding and none was
	// settled for so long. It leaves room for a request to time out and be
	// repeated on another connection. Default 20s.
	StallTimeout time.Duration

	// ProbeInterval is how often an idle session sends a request to see whether
	// the cluster answers. Default 2s.
	ProbeInterval time.Duration

	// ProbeTimeout ends an idle session if that request was not answered for so
	// long. Default 4s.
	ProbeTimeout time.Duration

	// PauseLimit is for how long the process may not run, because it was stopped
	// or its machine suspended, before a session ends without sending what is
	// queued: a successor may have taken over. A forward step of the wall clock
	// looks like a pause. Default 3s.
	PauseLimit time.Duration

	// Logger receives what an operator may want to know. Default: nothing.
	Logger *slog.Logger

	// renewAfter is how many messages a session sends to one partition at most;
	// see defaultRenewAfter.
	renewAfter int64

	// clock is the process's, or a test's.
	clock func() instant

	// writeTimeout bounds WriteMarks.
	writeTimeout time.Duration
}

// TopicDefaults describes topics that the sink creates.
type TopicDefaults struct {
	// Create makes a missing topic on first use; otherwise Send says
	// topic_missing until it is there.
	Create bool

	// Partitions of a created topic. 0 or -1: the broker's num.partitions.
	Partitions int32

	// ReplicationFactor of a created topic, the checkpoint topic included.
	// 0 or -1: the broker's default.replication.factor.
	ReplicationFactor int16

	// Config holds topic-level configuration, such as retention.ms. It does not
	// apply to the checkpoint topic.
	Config map[string]string
}

const (
	brokerMaxMessageBytes = 1048588 // broker default of message.max.bytes
	minMaxMessageBytes    = 1024    // below it not even walpost's headers fit

	// defaultRenewAfter bounds the messages of one session to one partition.
	// Their sequence numbers are int32: the broker expects 0 after 2^31-1, but
	// sarama does not wrap. At a quarter of that a session ends after settling
	// everything, and the next one starts at 0 with a new producer id.
	defaultRenewAfter = 1 << 29

	// defaultWriteTimeout leaves a coordinator that has just started time to
	// load.
	defaultWriteTimeout = 30 * time.Second
)

func (c Config) withDefaults() Config {
	name := "walpost." + c.Pipeline
	setDefault(&c.ClientID, name)
	setDefault(&c.TransactionalID, name)
	setDefault(&c.CheckpointTopic, "walpost.checkpoint."+c.Pipeline)
	setDefault(&c.MaxMessageBytes, brokerMaxMessageBytes)
	setDefault(&c.Topics.Partitions, -1)
	setDefault(&c.Topics.ReplicationFactor, -1)
	setDefault(&c.TransactionTimeout, time.Minute)
	setDefault(&c.DialTimeout, 3*time.Second)
	setDefault(&c.RequestTimeout, 10*time.Second)
	setDefault(&c.StallTimeout, 20*time.Second)
	setDefault(&c.ProbeInterval, 2*time.Second)
	setDefault(&c.ProbeTimeout, 4*time.Second)
	setDefault(&c.PauseLimit, 3*time.Second)
	setDefault(&c.renewAfter, defaultRenewAfter)
	setDefault(&c.writeTimeout, defaultWriteTimeout)
	if c.clock == nil {
		c.clock = systemClock()
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// checkTopicName applies the broker's rule
// (org.apache.kafka.common.internals.Topic).
func checkTopicName(name string) error {
	const longest = 249
	legal := name != "" && len(name) <= longest && name != "." && name != ".."
	for i := 0; legal && i < len(name); i++ {
		legal = legalTopicByte(name[i])
	}
	if !legal {
		return fmt.Errorf("topic name %q: Kafka allows 1 to %d of a-z A-Z 0-9 . _ -", name, longest)
	}
	return nil
}

func legalTopicByte(b byte) bool {
	return 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || '0' <= b && b <= '9' || b == '.' || b == '_' || b == '-'
}

func checkAddress(addr string) error {
	if _, _, err := net.SplitHostPort(addr); err != nil {
		return fmt.Errorf("broker %q: want host:port", addr)
	}
	return nil
}

// validate reports everything that is wrong with a configuration whose
// defaults are filled in.
func (c Config) validate() error {
	checks := []struct {
		wrong bool
		what  string
	}{
		{len(c.Brokers) == 0, "no brokers given"},
		{c.Pipeline == "", "no pipeline name given"},
		{c.MaxMessageBytes < minMaxMessageBytes, fmt.Sprintf("max message bytes is %d, at least %d are needed", c.MaxMessageBytes, minMaxMessageBytes)},
		{c.Topics.Partitions < -1, fmt.Sprintf("%d partitions: want a positive number, or -1 for the broker's default", c.Topics.Partitions)},
		{c.Topics.ReplicationFactor < -1, fmt.Sprintf("replication factor %d: want a positive number, or -1 for the broker's default", c.Topics.ReplicationFactor)},
		{c.TransactionTimeout < 0 || c.DialTimeout < 0 || c.RequestTimeout < 0 || c.StallTimeout < 0 || c.ProbeInterval < 0 || c.ProbeTimeout < 0 || c.PauseLimit < 0, "a timeout is negative"},
	}
	errs := []error{checkTopicName(c.CheckpointTopic)}
	for _, check := range checks {
		if check.wrong {
			errs = append(errs, errors.New(check.what))
		}
	}
	for _, addr := range c.Brokers {
		errs = append(errs, checkAddress(addr))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("kafka sink: %w", err)
	}
	return nil
}
