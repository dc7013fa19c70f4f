package bench

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/IBM/sarama"

	"github.com/walpost/walpost/test/harness"
)

// producer makes transactions of one record with the client library alone, set up
// as well as walpost sets it up.
type producer struct {
	topic, value string
	sarama       sarama.AsyncProducer
}

func newProducer(b *testing.B, broker *harness.Broker, value string) *producer {
	b.Helper()
	p := &producer{topic: broker.Topic("bare"), value: value}
	broker.CreateTopic(b, p.topic, partitions)
	conf := sarama.NewConfig()
	conf.Version = sarama.V3_9_0_0
	conf.Net.MaxOpenRequests = 1
	conf.Producer.Idempotent = true
	conf.Producer.RequiredAcks = sarama.WaitForAll
	conf.Producer.Partitioner = sarama.NewManualPartitioner
	conf.Producer.Transaction.ID = p.topic
	conf.Producer.Transaction.Retry.Max = 500
	conf.Producer.Transaction.Retry.Backoff = time.Millisecond // the default of 100 ms would be most of the time
	producer, err := sarama.NewAsyncProducer(broker.Addrs, conf)
	if err != nil {
		b.Fatal(err)
	}
	p.sarama = producer
	b.Cleanup(func() { _ = producer.Close() })
	return p
}

func (p *producer) lanes() int { return 1 }

func (p *producer) prepare(context.Context, int, int) error { return nil }

// commit returns what became of the record as well: CommitTxn fails if it was refused.
func (p *producer) commit(_ context.Context, _, n int) error {
	if err := p.sarama.BeginTxn(); err != nil {
		return err
	}
	p.sarama.Input() <- &sarama.ProducerMessage{
		Topic: p.topic, Partition: int32(n % partitions),
		Key: sarama.StringEncoder(strconv.Itoa(n)), Value: sarama.StringEncoder(p.value),
	}
	return p.sarama.CommitTxn()
}
