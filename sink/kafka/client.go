package kafka

import (
	"time"

	"github.com/IBM/sarama"
)

// protocolVersion is that of the oldest supported broker. It is an upper limit:
// sarama asks each broker for its API versions and uses the highest that both
// know. 3.9 has everything that is needed here, Produce v10 and topic ids in
// Metadata included.
func protocolVersion() sarama.KafkaVersion { return sarama.V3_9_0_0 }

// The retry budgets have two aims. The producer survives a short disturbance,
// such as a partition's leader moving or a rolling restart of one broker. An
// outage of the whole cluster ends the session soon, so that the relay reports
// it and reconnects with its own backoff.
const (
	// Producer.Retry repeats a batch after a temporary error of the broker (not
	// leader, not enough replicas) or a broken connection, here for 10 s. The
	// first retry comes almost at once, because the most common cause is a
	// connection that the broker has closed as idle.
	produceRetries      = 100
	produceBackoff      = 100 * time.Millisecond
	produceFirstBackoff = 5 * time.Millisecond

	// Metadata.Retry limits how long a partition may be without a leader.
	// Before it retries a batch, sarama refreshes the metadata; if that fails
	// it tries a second time and then gives the batch up. Each refresh takes up
	// to 3 s (12 retries, 250 ms apart), so a new leader must be elected within
	// 6 s. When one of three brokers was killed under load, that took 3 to 5 s
	// and the session survived. If all brokers refuse connections, a session
	// under load ends after the same 6 s, an idle one (see watch) after 5 s. If
	// connections hang, metadataTimeout and watch end it.
	metadataRetries = 12
	metadataBackoff = 250 * time.Millisecond
	metadataTimeout = 5 * time.Second

	// Transaction.Retry waits for the coordinator. For a few milliseconds after
	// a commit it answers CONCURRENT_TRANSACTIONS; sarama's default backoff of
	// 100 ms would make up most of a commit's duration. With 100 quick retries
	// first, a transaction takes 3 ms; the slow ones after that give a
	// coordinator that moves or loads 20 s.
	txnRetries      = 500
	txnQuick        = 100
	txnQuickBackoff = time.Millisecond
	txnSlowBackoff  = 50 * time.Millisecond

	// The event producer has no transactions and uses Transaction.Retry only to
	// ask for a producer id. A broker that has just started refuses the first
	// requests; this allows 3 s.
	producerIDRetries = 60
	producerIDBackoff = 50 * time.Millisecond

	// markTxnTimeout is how long a transaction may stay open before the
	// coordinator aborts it. It matters if a relay dies during a commit and no
	// successor fences it.
	markTxnTimeout = 10 * time.Second

	// pairWait is how long a lone record waits for another one: event and mark may
	// go to different brokers.
	pairWait = 200 * time.Microsecond

	// marksMaxMessageBytes bounds a batch of marks. It does not follow
	// Config.MaxMessageBytes, which may be small: the floors mark grows with
	// the number of partitions, whatever size the events have.
	marksMaxMessageBytes = brokerMaxMessageBytes
)

// baseConfig is common to all clients of a session. TLS and SASL belong here
// and nowhere else.
func (c Config) baseConfig(d *dialer) *sarama.Config {
	conf := sarama.NewConfig()
	conf.Version = protocolVersion()
	conf.ClientID = c.ClientID
	conf.Net.DialTimeout = c.DialTimeout
	conf.Net.ReadTimeout = c.RequestTimeout
	conf.Net.WriteTimeout = c.RequestTimeout
	conf.Net.MaxOpenRequests = 1 // keeps the order; so do the sequence numbers
	conf.Net.Proxy.Enable = true
	conf.Net.Proxy.Dialer = d
	conf.Metadata.Full = false // only of the topics written to
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
// Producer.Flush stays at zero: a message never waits for a batch to fill up;
// what arrives during one request goes with the next. If small batches ever cost
// throughput, Flush.Messages and Flush.Frequency are the settings to try.
func (c Config) eventConfig(d *dialer) *sarama.Config {
	conf := c.producerConfig(d)
	conf.ChannelBufferSize = 4096 // 20% faster than sarama's 256; 32 KiB per partition
	conf.Producer.Transaction.Retry.Max = producerIDRetries
	conf.Producer.Transaction.Retry.BackoffFunc = d.pace(constant(producerIDBackoff))
	return conf
}

// transactionConfig is that of an atomic session's producer: it carries events
// like the event producer and commits like the marks producer.
//
// A transaction of one event is one event and one mark, which Commit sends right
// behind it. If sarama sent the event at once, the mark would need an
// AddPartitionsToTxn and a Produce of its own, about half of the whole commit
// (BenchmarkCommit in test/integration). So a request takes two records, or
// as many as have come after pairWait.
func (c Config) transactionConfig(d *dialer, inError func() bool) *sarama.Config {
	conf := c.eventConfig(d)
	conf.Producer.Flush.Messages, conf.Producer.Flush.Frequency = 2, pairWait
	c.makeTransactional(conf, d, inError, c.TransactionTimeout)
	return conf
}

// marksConfig is the marks producer's.
func (c Config) marksConfig(d *dialer, inError func() bool) *sarama.Config {
	conf := c.producerConfig(d)
	conf.ChannelBufferSize = 16 // there are only a few marks at a time
	conf.Producer.MaxMessageBytes = marksMaxMessageBytes
	c.makeTransactional(conf, d, inError, markTxnTimeout)
	return conf
}

// makeTransactional adds what a producer with transactions needs. inError reports
// that its transaction can't be committed any more. Retries are then made without
// a wait: sarama repeats even a batch that it may not add to the transaction, and
// a fenced producer would report it only after all retries.
func (c Config) makeTransactional(conf *sarama.Config, d *dialer, inError func() bool, timeout time.Duration) {
	conf.Producer.Retry.BackoffFunc = d.pace(func(retries int) time.Duration {
		if inError() {
			return 0
		}
		return produceWait(retries)
	})
	conf.Producer.Transaction.ID = c.TransactionalID
	conf.Producer.Transaction.Timeout = timeout
	conf.Producer.Transaction.Retry.Max = txnRetries
	conf.Producer.Transaction.Retry.BackoffFunc = d.pace(txnBackoff)
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
