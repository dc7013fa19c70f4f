package harness

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/walpost/walpost/test/harness/servers"
)

// kafkaTimeout bounds what a test asks a broker.
const kafkaTimeout = time.Minute

// Broker is a Kafka broker, with a prefix for this test's topics.
type Broker struct {
	// Addr is its host:port, of a cluster that of the first broker.
	Addr string
	// Addrs are those of all brokers.
	Addrs []string
	// Version says what runs, an image's name or a version number; of a cluster nothing.
	Version string
	// Prefix begins the name of every topic of this test; it ends in a dot.
	Prefix string
}

// DedicatedBroker is a broker of the test's own.
type DedicatedBroker struct {
	*Broker
	Faulty
}

// Record is a record as a read_committed consumer sees it.
type Record struct {
	Topic     string
	Partition int32
	Offset    int64
	Time      time.Time
	Key       []byte // nil: null
	Value     []byte // nil: null
	Headers   []Header
}

// Header is a header of a record.
type Header struct {
	Key   string
	Value []byte
}

// Header returns the value of the first header of that name; empty if there is
// none.
func (r Record) Header(key string) string {
	for _, h := range r.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

// Kafka gives the test the shared broker of the newest release. Topics that
// begin with its prefix are deleted at the test's end.
func Kafka(t testing.TB) *Broker {
	t.Helper()
	server, err := current.one(current.kafka, Newest, func(ctx context.Context, set *servers.Set) (*servers.Server, error) {
		return set.Kafka(ctx, Newest)
	})
	if err != nil {
		t.Fatal(err)
	}
	b := newBroker(server.Addr)
	b.Version = server.Version
	t.Cleanup(func() { b.deleteTopics(t) })
	return b
}

// DedicatedKafka gives the test a broker of its own.
func DedicatedKafka(t testing.TB, release Release) *DedicatedBroker {
	t.Helper()
	server := current.dedicated(t, func(ctx context.Context, set *servers.Set) (*servers.Server, error) {
		return set.Kafka(ctx, release)
	})
	return &DedicatedBroker{Broker: newBroker(server.Addr), Faulty: Faulty{t: t, server: server}}
}

func newBroker(addrs ...string) *Broker {
	return &Broker{Addr: addrs[0], Addrs: addrs, Prefix: Name("t") + "."}
}

// Topic is the full name of a topic of this test.
func (b *Broker) Topic(name string) string { return b.Prefix + name }

// CreateTopic makes a topic, by its full name, with a replica on every broker,
// and with configs as pairs of name and value.
func (b *Broker) CreateTopic(t testing.TB, topic string, partitions int, configs ...string) {
	t.Helper()
	request := kmsg.NewPtrCreateTopicsRequest()
	wanted := kmsg.NewCreateTopicsRequestTopic()
	wanted.Topic, wanted.NumPartitions, wanted.ReplicationFactor = topic, int32(partitions), int16(len(b.Addrs)) //nolint:gosec // a handful
	for i := 0; i+1 < len(configs); i += 2 {
		config := kmsg.NewCreateTopicsRequestTopicConfig()
		config.Name, config.Value = configs[i], &configs[i+1]
		wanted.Configs = append(wanted.Configs, config)
	}
	request.Topics = append(request.Topics, wanted)
	b.use(t, "create topic "+topic, func(ctx context.Context, client *kgo.Client) error {
		response, err := request.RequestWith(ctx, client)
		if err != nil {
			return err
		}
		if err := kerr.ErrorForCode(response.Topics[0].ErrorCode); err != nil {
			return err
		}
		return awaitTopic(ctx, client, topic)
	})
}

// awaitTopic waits until the broker knows a topic that was just created: the
// controller's answer comes before the broker has heard of it.
func awaitTopic(ctx context.Context, client *kgo.Client, topic string) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := partitionsOf(ctx, client, topic)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-tick.C:
		}
	}
}

// DeleteTopic deletes a topic by its full name.
func (b *Broker) DeleteTopic(t testing.TB, topic string) {
	t.Helper()
	b.use(t, "delete topic "+topic, func(ctx context.Context, client *kgo.Client) error {
		return deleteTopics(ctx, client, topic)
	})
}

func deleteTopics(ctx context.Context, client *kgo.Client, topics ...string) error {
	request := kmsg.NewPtrDeleteTopicsRequest()
	for _, topic := range topics {
		doomed := kmsg.NewDeleteTopicsRequestTopic()
		doomed.Topic = kmsg.StringPtr(topic)
		request.Topics = append(request.Topics, doomed)
	}
	request.TopicNames = topics // before version 6
	response, err := request.RequestWith(ctx, client)
	if err != nil {
		return err
	}
	var errs []error
	for _, topic := range response.Topics {
		errs = append(errs, kerr.ErrorForCode(topic.ErrorCode))
	}
	return errors.Join(errs...)
}

// Topics lists the broker's topics whose names begin with prefix.
func (b *Broker) Topics(t testing.TB, prefix string) []string {
	t.Helper()
	var topics []string
	b.use(t, "list topics", func(ctx context.Context, client *kgo.Client) error {
		partitions, err := partitionsOf(ctx, client)
		for topic := range partitions {
			if strings.HasPrefix(topic, prefix) {
				topics = append(topics, topic)
			}
		}
		return err
	})
	return topics
}

func (b *Broker) deleteTopics(t testing.TB) {
	t.Helper()
	topics := b.Topics(t, b.Prefix)
	if len(topics) == 0 {
		return
	}
	b.use(t, "delete this test's topics", func(ctx context.Context, client *kgo.Client) error {
		return deleteTopics(ctx, client, topics...)
	})
}

// Consume reads every topic given, from its start to where it ends now, the way
// a read_committed consumer does. Records of a partition are in its order;
// partitions follow each other.
func (b *Broker) Consume(t testing.TB, topics ...string) []Record {
	t.Helper()
	var records []Record
	b.use(t, "consume "+strings.Join(topics, ", "), func(ctx context.Context, client *kgo.Client) error {
		var err error
		records, err = consume(ctx, client, topics)
		return err
	}, kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(), kgo.FetchMaxWait(100*time.Millisecond))
	return records
}

// Produce writes records, in the order given, and waits for their
// acknowledgement. A partition of -1 lets the key decide.
func (b *Broker) Produce(t testing.TB, records ...Record) {
	t.Helper()
	b.use(t, "produce", func(ctx context.Context, client *kgo.Client) error {
		for _, r := range records {
			out := &kgo.Record{Topic: r.Topic, Partition: r.Partition, Key: r.Key, Value: r.Value}
			for _, h := range r.Headers {
				out.Headers = append(out.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
			}
			if err := client.ProduceSync(ctx, out).FirstErr(); err != nil {
				return err
			}
		}
		return nil
	}, kgo.RecordPartitioner(kgo.ManualPartitioner()))
}

// use is a conversation that must succeed.
func (b *Broker) use(t testing.TB, what string, talk func(context.Context, *kgo.Client) error, options ...kgo.Opt) {
	t.Helper()
	if err := b.converse(talk, options...); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// converse has a client of its own, so that it works after the broker was away.
func (b *Broker) converse(talk func(context.Context, *kgo.Client) error, options ...kgo.Opt) error {
	ctx, cancel := context.WithTimeout(context.Background(), kafkaTimeout)
	defer cancel()
	// Behind the engine's proxy a dead broker of a cluster hangs up, which else
	// is taken for a want of TLS.
	client, err := kgo.NewClient(append(options, kgo.SeedBrokers(b.Addrs...), kgo.AlwaysRetryEOF())...)
	if err != nil {
		return err
	}
	defer client.Close()
	return talk(ctx, client)
}

// partitionsOf returns the number of partitions of the named topics, of all
// where none is named.
func partitionsOf(ctx context.Context, client *kgo.Client, topics ...string) (map[string]int, error) {
	described, err := metadata(ctx, client, topics...)
	counts := map[string]int{}
	for _, topic := range described {
		counts[*topic.Topic] = len(topic.Partitions)
	}
	return counts, err
}

// metadata describes the named topics, all where none is named.
func metadata(ctx context.Context, client *kgo.Client, topics ...string) ([]kmsg.MetadataResponseTopic, error) {
	request := kmsg.NewPtrMetadataRequest()
	for _, topic := range topics {
		asked := kmsg.NewMetadataRequestTopic()
		asked.Topic = kmsg.StringPtr(topic)
		request.Topics = append(request.Topics, asked)
	}
	response, err := request.RequestWith(ctx, client)
	if err != nil {
		return nil, err
	}
	for _, topic := range response.Topics {
		if err := kerr.ErrorForCode(topic.ErrorCode); err != nil {
			return nil, fmt.Errorf("topic %s: %w", *topic.Topic, err)
		}
	}
	return response.Topics, nil
}

// position is a partition and the offset after what was read, or is there.
type position struct {
	topic     string
	partition int32
}

func consume(ctx context.Context, client *kgo.Client, topics []string) ([]Record, error) {
	counts, err := partitionsOf(ctx, client, topics...)
	if err != nil {
		return nil, err
	}
	ends, err := endOffsets(ctx, client, counts)
	if err != nil {
		return nil, err
	}
	from := map[string]map[int32]kgo.Offset{}
	for p := range ends {
		if from[p.topic] == nil {
			from[p.topic] = map[int32]kgo.Offset{}
		}
		from[p.topic][p.partition] = kgo.NewOffset().AtStart()
	}
	client.AddConsumePartitions(from)
	return readTo(ctx, client, ends)
}

// readTo polls until every partition was read to its end. Control records are
// fetched as well: a partition may end with one.
func readTo(ctx context.Context, client *kgo.Client, ends map[position]int64) ([]Record, error) {
	byPartition := map[position][]Record{}
	for len(ends) > 0 {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return nil, err
		}
		fetches.EachRecord(func(r *kgo.Record) {
			p := position{r.Topic, r.Partition}
			end, open := ends[p]
			if open && r.Offset < end && !r.Attrs.IsControl() {
				byPartition[p] = append(byPartition[p], recordOf(r))
			}
			if open && r.Offset+1 >= end {
				delete(ends, p)
			}
		})
	}
	var all []Record
	for _, records := range byPartition {
		all = append(all, records...)
	}
	return all, nil
}

func recordOf(r *kgo.Record) Record {
	out := Record{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Time: r.Timestamp, Key: r.Key, Value: r.Value}
	for _, h := range r.Headers {
		out.Headers = append(out.Headers, Header{Key: h.Key, Value: h.Value})
	}
	return out
}

// endOffsets returns the last stable offset of every partition that is not
// empty.
func endOffsets(ctx context.Context, client *kgo.Client, counts map[string]int) (map[position]int64, error) {
	ends := map[position]int64{}
	for _, at := range []int64{-1, -2} { // the end, then the start
		response, err := listOffsets(ctx, client, counts, at)
		if err != nil {
			return nil, err
		}
		for _, topic := range response.Topics {
			for _, partition := range topic.Partitions {
				if err := kerr.ErrorForCode(partition.ErrorCode); err != nil {
					return nil, fmt.Errorf("offsets of %s-%d: %w", topic.Topic, partition.Partition, err)
				}
				p := position{topic.Topic, partition.Partition}
				if at == -1 {
					ends[p] = partition.Offset
				} else if ends[p] == partition.Offset {
					delete(ends, p)
				}
			}
		}
	}
	return ends, nil
}

func listOffsets(ctx context.Context, client *kgo.Client, counts map[string]int, at int64) (*kmsg.ListOffsetsResponse, error) {
	request := kmsg.NewPtrListOffsetsRequest()
	request.ReplicaID, request.IsolationLevel = -1, 1
	for topic, count := range counts {
		asked := kmsg.NewListOffsetsRequestTopic()
		asked.Topic = topic
		for partition := range count {
			wanted := kmsg.NewListOffsetsRequestTopicPartition()
			wanted.Partition, wanted.Timestamp = int32(partition), at
			asked.Partitions = append(asked.Partitions, wanted)
		}
		request.Topics = append(request.Topics, asked)
	}
	return request.RequestWith(ctx, client)
}
