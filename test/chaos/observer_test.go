package chaos

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/walpost/walpost/outbox"
	"github.com/walpost/walpost/test/harness"
)

// observer is a read_committed consumer that reads along for a whole run, and
// keeps everything in the order of its partition.
type observer struct {
	t      testing.TB
	client *kgo.Client
	topics map[string]int // partitions
	done   chan struct{}  // closed when the goroutine has ended

	mu        sync.Mutex
	seen      []seen
	published map[string]bool
	next      offsets // after what was read, control records included
	lost      error   // the log was cut off below what was read
}

// seen is a record, less what nobody asks for.
type seen struct {
	place
	offset         int64
	producer       int64 // one per session of a relay
	id, key, value string
	at             time.Time // read
}

type place struct {
	topic     string
	partition int32
}

type offsets map[place]int64

// observe reads until the test's end.
func observe(t testing.TB, brokers []string, topics map[string]int) *observer {
	t.Helper()
	from := map[string]map[int32]kgo.Offset{}
	for topic, partitions := range topics {
		from[topic] = map[int32]kgo.Offset{}
		for p := range partitions {
			from[topic][int32(p)] = kgo.NewOffset().AtStart()
		}
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.AlwaysRetryEOF(), kgo.ConsumePartitions(from), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), kgo.FetchMaxWait(100*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	o := &observer{t: t, client: client, topics: topics, done: make(chan struct{}), published: map[string]bool{}, next: offsets{}}
	go o.run()
	t.Cleanup(func() {
		client.Close()
		<-o.done
	})
	return o
}

// run ends when the client is closed. Other errors pass: the client tries again.
func (o *observer) run() {
	defer close(o.done)
	for {
		fetches := o.client.PollFetches(context.Background())
		if fetches.IsClientClosed() {
			return
		}
		o.take(fetches)
	}
}

func (o *observer) take(fetches kgo.Fetches) {
	o.mu.Lock()
	defer o.mu.Unlock()
	fetches.EachError(func(_ string, _ int32, err error) {
		var cut *kgo.ErrDataLoss
		if errors.As(err, &cut) {
			o.lost = errors.Join(o.lost, err)
		}
	})
	now := time.Now()
	fetches.EachRecord(func(r *kgo.Record) {
		at := place{r.Topic, r.Partition}
		o.next[at] = r.Offset + 1
		if r.Attrs.IsControl() {
			return
		}
		s := seen{place: at, offset: r.Offset, producer: r.ProducerID, key: string(r.Key), value: string(r.Value), at: now}
		for _, h := range r.Headers {
			if h.Key == outbox.HeaderID {
				s.id = string(h.Value)
			}
		}
		o.seen = append(o.seen, s)
		o.published[s.id] = true
	})
}

// count is how many events were read.
func (o *observer) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.published)
}

func (o *observer) has(id string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.published[id]
}

// await waits until n more events were read than now.
func (o *observer) await(n int) {
	o.t.Helper()
	before := o.count()
	harness.Eventually(o.t, patience, fmt.Sprintf("%d further events", n), func() error {
		if got := o.count() - before; got < n {
			return fmt.Errorf("%d came", got)
		}
		return nil
	})
}

// catchUp reads up to where the log ends now for a read_committed consumer.
func (o *observer) catchUp() {
	o.t.Helper()
	ends := o.ends(readCommitted)
	harness.Eventually(o.t, patience, "read to the end", func() error {
		o.mu.Lock()
		defer o.mu.Unlock()
		for at, end := range ends {
			if o.next[at] < end {
				return fmt.Errorf("%v: at %d of %d", at, o.next[at], end)
			}
		}
		return nil
	})
}

const (
	readUncommitted int8 = 0
	readCommitted   int8 = 1
)

// ends asks where the partitions end. A server that has just come back may need
// a moment until it leads them again.
func (o *observer) ends(isolation int8) offsets {
	o.t.Helper()
	var ends offsets
	harness.Eventually(o.t, patience, "ask for the partitions' ends", func() error {
		var err error
		ends, err = o.askEnds(isolation)
		return err
	})
	return ends
}

func (o *observer) askEnds(isolation int8) (offsets, error) {
	request := kmsg.NewPtrListOffsetsRequest()
	request.ReplicaID, request.IsolationLevel = -1, isolation
	for topic, count := range o.topics {
		asked := kmsg.NewListOffsetsRequestTopic()
		asked.Topic = topic
		for partition := range count {
			wanted := kmsg.NewListOffsetsRequestTopicPartition()
			wanted.Partition, wanted.Timestamp = int32(partition), -1
			asked.Partitions = append(asked.Partitions, wanted)
		}
		request.Topics = append(request.Topics, asked)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	response, err := request.RequestWith(ctx, o.client)
	if err != nil {
		return nil, err
	}
	ends := offsets{}
	for _, topic := range response.Topics {
		for _, p := range topic.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return nil, fmt.Errorf("%s-%d: %w", topic.Topic, p.Partition, err)
			}
			ends[place{topic.Topic, p.Partition}] = p.Offset
		}
	}
	return ends, nil
}

// all is what was read so far, and an error if the log was cut off meanwhile.
func (o *observer) all() ([]seen, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clip(o.seen), o.lost
}

// records are what a ledger judges.
func records(all []seen) []harness.Record {
	list := make([]harness.Record, 0, len(all))
	for _, s := range all {
		list = append(list, harness.Record{
			Topic: s.topic, Partition: s.partition, Offset: s.offset, Key: []byte(s.key), Value: []byte(s.value),
			Headers: []harness.Header{{Key: outbox.HeaderID, Value: []byte(s.id)}},
		})
	}
	return list
}
