package integration

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/IBM/sarama"

	"github.com/walpost/walpost/outbox"
	"github.com/walpost/walpost/sink"
	"github.com/walpost/walpost/sink/kafka"
	"github.com/walpost/walpost/test/harness"
)

// BenchmarkCommit measures one transaction of an atomic sink, from the first
// message to the end of Commit, beside what the client library alone needs for
// the same events without marks. Run it with -benchtime=100x.
func BenchmarkCommit(b *testing.B) {
	broker := harness.Kafka(b)
	for _, events := range []int{1, 100, 1000, 20_000} {
		b.Run("walpost/"+strconv.Itoa(events), func(b *testing.B) { measure(b, events, walpostTransaction(b, broker, events)) })
		b.Run("sarama/"+strconv.Itoa(events), func(b *testing.B) { measure(b, events, saramaTransaction(b, broker, events)) })
	}
}

func measure(b *testing.B, events int, transaction func() error) {
	b.Helper()
	var took []time.Duration
	for b.Loop() {
		start := time.Now()
		if err := transaction(); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	at := func(percent int) float64 { return float64(took[len(took)*percent/100].Microseconds()) / 1000 }
	b.ReportMetric(at(50), "p50-ms")
	b.ReportMetric(at(99), "p99-ms")
	b.ReportMetric(float64(events*len(took))/b.Elapsed().Seconds(), "events/s")
}

const benchPartitions = 3

// walpostTransaction sends events and commits them with one mark.
func walpostTransaction(b *testing.B, broker *harness.Broker, events int) func() error {
	b.Helper()
	topic := broker.Topic(harness.Name("walpost"))
	broker.CreateTopic(b, topic, benchPartitions)
	s, err := kafka.New(kafka.Config{Brokers: []string{broker.Addr}, Pipeline: topic, CheckpointTopic: topic + ".marks", Atomic: true})
	if err == nil {
		err = s.EnsureCheckpointTopic(b.Context())
	}
	if err != nil {
		b.Fatal(err)
	}
	session, _, err := s.Open(b.Context(), func([]uint64, sink.Outcome) {})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = session.Close(context.Background()) })
	msgs := make([]outbox.Message, events)
	var seq uint64
	return func() error {
		for i := range msgs {
			seq++
			msgs[i] = outbox.Message{Pos: outbox.Position{Generation: 1, Commit: seq}, Seq: seq, Topic: topic, Partition: int32(i % benchPartitions), Value: benchValue()}
		}
		if n, err := session.Send(b.Context(), msgs); err != nil {
			return fmt.Errorf("%d taken: %w", n, err)
		}
		return session.Commit(b.Context(), seq+1, map[string][]byte{"position": benchValue()})
	}
}

// saramaTransaction does with the client library alone what walpost asks of it.
func saramaTransaction(b *testing.B, broker *harness.Broker, events int) func() error {
	b.Helper()
	topic := broker.Topic(harness.Name("sarama"))
	broker.CreateTopic(b, topic, benchPartitions)
	conf := sarama.NewConfig()
	conf.Version = sarama.V3_9_0_0
	conf.ChannelBufferSize = 4096
	conf.Net.MaxOpenRequests = 1
	conf.Producer.Idempotent = true
	conf.Producer.RequiredAcks = sarama.WaitForAll
	conf.Producer.Partitioner = sarama.NewManualPartitioner
	conf.Producer.Transaction.ID = topic
	conf.Producer.Transaction.Retry.Max = 500
	conf.Producer.Transaction.Retry.Backoff = time.Millisecond
	conf.Producer.Return.Errors = true
	producer, err := sarama.NewAsyncProducer([]string{broker.Addr}, conf)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = producer.Close() })
	return func() error {
		if err := producer.BeginTxn(); err != nil {
			return err
		}
		for i := range events {
			producer.Input() <- &sarama.ProducerMessage{Topic: topic, Partition: int32(i % benchPartitions), Value: sarama.ByteEncoder(benchValue())}
		}
		return producer.CommitTxn()
	}
}

func benchValue() []byte { return make([]byte, 300) }
