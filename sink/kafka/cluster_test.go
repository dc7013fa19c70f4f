package kafka

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/walpost/walpost/outbox"
	"github.com/walpost/walpost/sink"
	"github.com/walpost/walpost/sink/sinktest"
)

// fakeCluster starts an in-process Kafka.
func fakeCluster(t *testing.T, opts ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// testConfig is patient with a busy machine and impatient with an outage.
func testConfig(c *kfake.Cluster) Config {
	return Config{
		Brokers:       c.ListenAddrs(),
		Pipeline:      "test",
		Topics:        TopicDefaults{ReplicationFactor: 1},
		DialTimeout:   time.Second,
		ProbeInterval: 50 * time.Millisecond,
	}
}

func newSink(t *testing.T, cfg Config) *Sink {
	t.Helper()
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// prepared is a sink whose checkpoint topic exists.
func prepared(t *testing.T, cfg Config) *Sink {
	t.Helper()
	s := newSink(t, cfg)
	if err := s.EnsureCheckpointTopic(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

// opened is an open session, with the sequence numbers it settles.
func opened(t *testing.T, s *Sink) (*session, <-chan uint64) {
	t.Helper()
	settled := make(chan uint64, 1<<16)
	ses, _, err := s.Open(t.Context(), func(seqs []uint64, _ sink.Outcome) {
		for _, seq := range seqs {
			settled <- seq
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ses.Close(context.Background()) })
	return ses.(*session), settled
}

func makeTopic(t *testing.T, c *kfake.Cluster, name string, partitions int32) {
	t.Helper()
	if err := c.CreateTopic(name, partitions, nil); err != nil {
		t.Fatal(err)
	}
}

// event is the i-th message to a partition of a topic.
func event(topic string, partition int32, i int) outbox.Message {
	return outbox.Message{
		Seq:       uint64(i),
		Pos:       outbox.Position{Generation: 1, Commit: uint64(i)},
		Time:      time.Now(),
		ID:        fmt.Appendf(nil, "id-%d", i),
		Key:       []byte("secret key"),
		Value:     fmt.Appendf(nil, "secret payload %d", i),
		HashKey:   []byte("secret key"),
		Topic:     topic,
		Partition: partition,
	}
}

func mustSend(t *testing.T, s *session, msgs ...outbox.Message) {
	t.Helper()
	if n, err := s.Send(t.Context(), msgs); n != len(msgs) || err != nil {
		t.Fatalf("send: %d of %d taken: %v", n, len(msgs), err)
	}
}

// collect waits for n settled messages.
func collect(t *testing.T, s *session, settled <-chan uint64, n int) {
	t.Helper()
	for range n {
		select {
		case <-settled:
		case <-s.Done():
			t.Fatalf("the session ended: %v", s.Err())
		}
	}
}

// outcome waits for the end of a session and returns its condition, whether
// trying again may help, and the whole error.
func outcome(t *testing.T, s *session) (condition string, retryable bool, err error) {
	t.Helper()
	<-s.Done()
	return meaning(t, s.Err())
}

func meaning(t *testing.T, err error) (condition string, retryable bool, _ error) {
	t.Helper()
	var meaningful interface {
		Condition() string
		Remedy() string
		Retryable() bool
	}
	if !errors.As(err, &meaningful) {
		t.Fatalf("an error without a meaning: %v", err)
	}
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("an error shows a key or a payload: %v", err)
	}
	return meaningful.Condition(), meaningful.Retryable(), err
}

func remedyOf(err error) string {
	var remedied interface{ Remedy() string }
	if !errors.As(err, &remedied) {
		return ""
	}
	return remedied.Remedy()
}

// view is what a consumer sees of a cluster, through another client library.
type view struct {
	brokers []string
	names   atomic.Int64
	prefix  string
}

func (v *view) topic(t *testing.T, partitions int32) string {
	t.Helper()
	name := fmt.Sprintf("%stopic-%d", v.prefix, v.names.Add(1))
	req := kmsg.NewPtrCreateTopicsRequest()
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, partitions, 1
	req.Topics = append(req.Topics, topic)
	cl := v.client(t)
	resp, err := req.RequestWith(t.Context(), cl)
	if err == nil {
		err = kerr.ErrorForCode(resp.Topics[0].ErrorCode)
	}
	if err != nil {
		t.Fatalf("create topic %s: %v", name, err)
	}
	return name
}

// published reads a topic to its last stable offset, read_committed. Control
// records are fetched as well: a partition may end with one.
func (v *view) published(t *testing.T, topic string) []sinktest.Record {
	t.Helper()
	cl := v.client(t, kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(100*time.Millisecond))
	ends := v.ends(t, cl, topic)
	var records []sinktest.Record
	for len(ends) > 0 {
		fetches := cl.PollFetches(t.Context())
		if err := fetches.Err(); err != nil {
			t.Fatalf("consume %s: %v", topic, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			end, open := ends[r.Partition]
			if open && r.Offset < end && !r.Attrs.IsControl() {
				records = append(records, recordOf(r))
			}
			if open && r.Offset+1 >= end {
				delete(ends, r.Partition)
			}
		})
	}
	return records
}

func recordOf(r *kgo.Record) sinktest.Record {
	record := sinktest.Record{Partition: r.Partition, Key: r.Key, Value: r.Value}
	for _, h := range r.Headers {
		record.Headers = append(record.Headers, sinktest.Header{Key: h.Key, Value: h.Value})
	}
	return record
}

// ends returns the last stable offset of each partition that is not empty.
func (v *view) ends(t *testing.T, cl *kgo.Client, topic string) map[int32]int64 {
	t.Helper()
	meta := kmsg.NewPtrMetadataRequest()
	name := kmsg.NewMetadataRequestTopic()
	name.Topic = kmsg.StringPtr(topic)
	meta.Topics = append(meta.Topics, name)
	described, err := meta.RequestWith(t.Context(), cl)
	if err != nil {
		t.Fatal(err)
	}
	req := kmsg.NewPtrListOffsetsRequest()
	req.IsolationLevel = 1
	list := kmsg.NewListOffsetsRequestTopic()
	list.Topic = topic
	for _, p := range described.Topics[0].Partitions {
		partition := kmsg.NewListOffsetsRequestTopicPartition()
		partition.Partition, partition.Timestamp = p.Partition, -1
		list.Partitions = append(list.Partitions, partition)
	}
	req.Topics = append(req.Topics, list)
	ends := map[int32]int64{}
	for _, shard := range cl.RequestSharded(t.Context(), req) {
		if shard.Err != nil {
			t.Fatal(shard.Err)
		}
		for _, p := range shard.Resp.(*kmsg.ListOffsetsResponse).Topics[0].Partitions {
			if p.Offset > 0 {
				ends[p.Partition] = p.Offset
			}
		}
	}
	return ends
}

func (v *view) client(t *testing.T, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(v.brokers...))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// harness makes the conformance suite's harness for a cluster.
func (v *view) harness(cfg Config) sinktest.Harness {
	return sinktest.Harness{
		Process: func(t *testing.T, pipeline string) sink.Sink {
			t.Helper()
			cfg := cfg
			cfg.Pipeline = v.prefix + pipeline
			return prepared(t, cfg)
		},
		Topic:     v.topic,
		Published: v.published,
		Poison: map[string]func(*outbox.Message){
			"too large":              func(m *outbox.Message) { m.Value = bytes.Repeat([]byte("x"), brokerMaxMessageBytes) },
			"no such partition":      func(m *outbox.Message) { m.Partition = 99 },
			"no topic":               func(m *outbox.Message) { m.Topic = "" },
			"a topic with a space":   func(m *outbox.Message) { m.Topic = "a topic" },
			"a topic with a dot":     func(m *outbox.Message) { m.Topic = "." },
			"a topic of 250 letters": func(m *outbox.Message) { m.Topic = strings.Repeat("t", 250) },
		},
	}
}

func TestConformance(t *testing.T) {
	for kind, atomic := range map[string]bool{"continuous": false, "atomic": true} {
		t.Run(kind, func(t *testing.T) {
			sinktest.Run(t, func(t *testing.T) sinktest.Harness {
				t.Helper()
				c := fakeCluster(t)
				v := &view{brokers: c.ListenAddrs()}
				cfg := testConfig(c)
				cfg.Atomic = atomic
				return v.harness(cfg)
			})
		})
	}
}
