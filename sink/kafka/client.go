package kafka

import (
	"time"

	"github.com/IBM/sarama"
)

// protocolVersion is the oldest supported broker's. sarama asks each broker for
// its API versions and never goes above what both know, so it is a ceiling:
// everything up to it exists on 3.9 and on every 4.x, Produce v10 and
// topic ids in Metadata included, and a higher one would gain nothing here.
func protocolVersion() sarama.KafkaVersion { return sarama.V3_9_0_0 }

// The retry budgets. Two things must come out: a blip, such as the move of a
// partition's leader or a rolling restart of one broker, is ridden out by the
// producer; a cluster that is away as a whole ends the session soon, so that
// the relay reports it and reconnects on its own terms.
const (
	// Producer.Retry repeats a batch that a broker refused for a reason that
	// passes (not leader, not enough replicas) or whose connection broke; this
	// allows 10 s. The first repetition comes almost at once, because the most
	// ordinary reason is a connection that the broker closed for idleness.
	produceRetries      = 100
	produceBackoff      = 100 * time.Millisecond
	produceFirstBackoff = 5 * time.Millisecond

	// Metadata.Retry decides where there is nobody to repeat it to: before each
	// repetition sarama asks for metadata, once and then once more, and the
	// second failure is final. So a partition without a leader has twice 3 s:
	// with a broker of three killed under load the gap was 3 s here (up to 5 s
	// elsewhere), and the session lived on. A cluster that refuses connections
	// ends a session under load after the same 6 s, an idle one (see watch)
	// after 5; where connections hang, metadataTimeout and the watch end it.
	metadataRetries = 12
	metadataBackoff = 250 * time.Millisecond
	metadataTimeout = 5 * time.Second

	// Transaction.Retry waits for the coordinator. Right after a commit it
	// answers CONCURRENT_TRANSACTIONS for a few milliseconds, for which
	// sarama's own 100 ms would be most of a commit's time; with a quick first
	// hundred and a slow rest one transaction takes 3 ms and a coordinator that
	// moves or loads still has 20 s.
	txnRetries      = 500
	txnQuick        = 100
	txnQuickBackoff = time.Millisecond
	txnSlowBackoff  = 50 * time.Millisecond

	// The event producer is in no transaction; of its Transaction.Retry it only
	// uses what repeats the request for a producer id. A broker that has just
	// started refuses the first, and another 3 s are allowed as above.
	producerIDRetries = 60
	producerIDBackoff = 50 * time.Millisecond

	// markTxnTimeout is after how long the coordinator aborts the transaction
	// of a relay that died in a commit and has no successor that does.
	markTxnTimeout = 10 * time.Second
)

// baseConfig is what every client of a session has in common. A secured
// connection (TLS, SASL) is configured here and nowhere else.
func (c Config) baseConfig(d *dialer) *sarama.Config {
	conf := sarama.NewConfig()
	conf.Version = protocolVersion()
	conf.ClientID = c.ClientID
	conf.Net.DialTimeout = c.DialTimeout
	conf.Net.ReadTimeout = c.RequestTimeout
	conf.Net.WriteTimeout = c.RequestTimeout
	conf.Net.MaxOpenRequests = 1 // order, with sequence numbers as the second lock
	conf.Net.Proxy.Enable = true
	conf.Net.Proxy.Dialer = d
	conf.Metadata.Full = false // of the topics written to, not of all
	conf.Metadata.AllowAutoTopicCreation = false
	conf.Metadata.Retry.Max = metadataRetries
	conf.Metadata.Retry.BackoffFunc = d.pace(constant(metadataBackoff))
	conf.Metadata.Timeout = metadataTimeout
	return conf
}

func (c Config) producerConfig(d *dialer) *sarama.Config {
	conf := c.baseConfig(d)
	conf.Producer.Idempotent = true
	conf.Producer.RequiredAcks = sarama.WaitForAll
	conf.Producer.Timeout = c.RequestTimeout / 2
	conf.Producer.MaxMessageBytes = c.MaxMessageBytes
	conf.Producer.Partitioner = sarama.NewManualPartitioner
	conf.Producer.Return.Successes = true
	conf.Producer.Return.Errors = true
	conf.Producer.Retry.Max = produceRetries
	conf.Producer.Retry.BackoffFunc = d.pace(produceWait)
	return conf
}

// eventConfig is the event producer's.
//
// Batches come from load, not from delay: with Flush at zero whatever has
// gathered while a request was under way leaves with the next one. This is the
// place to tune it (Flush.Messages and Flush.Frequency), should tiny batches
// ever cost throughput on a busy machine.
func (c Config) eventConfig(d *dialer) *sarama.Config {
	conf := c.producerConfig(d)
	conf.ChannelBufferSize = 4096 // +20% over sarama's 256, for 32 KiB a partition
	conf.Producer.Transaction.Retry.Max = producerIDRetries
	conf.Producer.Transaction.Retry.BackoffFunc = d.pace(constant(producerIDBackoff))
	return conf
}

// marksConfig is the marks producer's. hopeless tells that its transaction can't
// be committed any more: sarama goes on repeating a batch it was not allowed to
// add to a transaction, and a fenced producer would notice only at the end of
// all its retries.
func (c Config) marksConfig(d *dialer, hopeless func() bool) *sarama.Config {
	conf := c.producerConfig(d)
	conf.ChannelBufferSize = 16 // a handful of marks at a time
	conf.Producer.Retry.BackoffFunc = d.pace(func(retries int) time.Duration {
		if hopeless() {
			return 0
		}
		return produceWait(retries)
	})
	conf.Producer.Transaction.ID = c.TransactionalID
	conf.Producer.Transaction.Timeout = markTxnTimeout
	conf.Producer.Transaction.Retry.Max = txnRetries
	conf.Producer.Transaction.Retry.BackoffFunc = d.pace(txnBackoff)
	return conf
}

func produceWait(retries int) time.Duration {
	if retries <= 1 {
		return produceFirstBackoff
	}
	return produceBackoff
}

func txnBackoff(retries int) time.Duration {
	if retries < txnQuick {
		return txnQuickBackoff
	}
	return txnSlowBackoff
}

func constant(wait time.Duration) func(int) time.Duration {
	return func(int) time.Duration { return wait }
}
