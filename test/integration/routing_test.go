package integration

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/walpost/walpost/outbox"
	"github.com/walpost/walpost/test/harness"
)

// TestARestartAfterTheTopicsHaveChanged: a relay is killed with events published
// that no checkpoint speaks of. Before the next one starts, something happens to
// where they are, or belong. No event is lost, and none comes twice.
func TestARestartAfterTheTopicsHaveChanged(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(p *pipeline){
		"not at all": func(*pipeline) {},
		"other topics": func(p *pipeline) {
			p.set("outbox.topic", p.topic("v2.{aggregate_type}"))
			p.kafka.CreateTopic(p.t, p.topic("v2.order"), 3)
		},
		"one topic for all": func(p *pipeline) {
			p.set("outbox.topic", p.topic("all"))
			p.kafka.CreateTopic(p.t, p.topic("all"), 1)
		},
		"more partitions": func(p *pipeline) { p.addPartitions(p.topic("order"), 11) },
		"other topics, and more partitions in the old one": func(p *pipeline) {
			p.addPartitions(p.topic("order"), 11)
			p.set("outbox.topic", p.topic("v2.{aggregate_type}"))
			p.kafka.CreateTopic(p.t, p.topic("v2.order"), 3)
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := prepared(t, harness.Postgres(t, harness.Newest))
			events := p.killUncommitted()
			change(p)
			relay := p.start()
			more := orders(100_000, 40)
			p.commit(more...)
			want := eventIDs(append(events, more...))
			wantIDs(t, p.await(len(want)), want...)
			p.stop(relay)
		})
	}
}

// killUncommitted has events published that the checkpoint does not speak of, and
// kills the relay. It returns all events.
func (p *pipeline) killUncommitted() []harness.Event {
	p.t.Helper()
	return p.killUncommittedOf(func(from int) []harness.Event { return orders(from, 100) })
}

func (p *pipeline) killUncommittedOf(made func(from int) []harness.Event) []harness.Event {
	p.t.Helper()
	var all []harness.Event
	for try := range 20 {
		relay, before := p.start(), p.confirmed()
		first := orders(try*1000, 1)
		p.commit(first...)
		p.awaitConfirmed(before) // the next checkpoint is a second away
		burst := made(try*1000 + 1)
		p.commit(burst...)
		all = append(append(all, first...), burst...)
		records := p.await(len(all))
		relay.Kill()
		if last := p.record().Last; last != nil && last.Position.Compare(newest(p.t, records)) < 0 {
			return all
		}
	}
	p.t.Fatal("a checkpoint was always faster than the kill")
	return nil
}

// orders makes n events of a few keys.
func orders(from, n int) []harness.Event {
	events := make([]harness.Event, n)
	for i := range events {
		events[i] = order(from+i, string(rune('a'+i%7)))
	}
	return events
}

func newest(t *testing.T, records []harness.Record) outbox.Position {
	t.Helper()
	var last outbox.Position
	for _, r := range records {
		if at := position(t, r); at.Compare(last) > 0 {
			last = at
		}
	}
	return last
}

// TestARestartAfterRetention: records are gone, those of committed events among
// them and some that no checkpoint speaks of. Those, and only those, come again.
func TestARestartAfterRetention(t *testing.T) {
	t.Parallel()
	p := prepared(t, harness.Postgres(t, harness.Newest))
	p.killUncommitted()
	before, last := p.published(), p.record().Last.Position
	var expired []int32
	for _, r := range before {
		if position(t, r).Compare(last) <= 0 {
			expired = []int32{r.Partition, (r.Partition + 1) % 6}
		}
	}
	p.deleteRecords(p.topic("order"), expired)

	more := orders(100_000, 40)
	p.commit(more...)
	relay := p.start()
	want := eventIDs(more)
	for _, r := range before {
		if !slices.Contains(expired, r.Partition) || position(t, r).Compare(last) > 0 {
			want = append(want, r.Header(outbox.HeaderID))
		}
	}
	wantIDs(t, p.await(len(want)), want...)
	p.stop(relay)
}

func eventIDs(events []harness.Event) []string {
	all := make([]string, len(events))
	for i, e := range events {
		all[i] = e.ID
	}
	return all
}

// TestATopicThatHasLostRecords: acknowledged records are gone, and only a person
// can tell what that means.
func TestATopicThatHasLostRecords(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(p *pipeline){
		"deleted and made anew": func(p *pipeline) {
			p.kafka.DeleteTopic(p.t, p.topic("order"))
			p.kafka.CreateTopic(p.t, p.topic("order"), 6)
		},
		// A broker that forgets acknowledged records can't be had at will. What is
		// remembered of them is raised instead.
		"shorter than it was": func(p *pipeline) { p.raiseFloors(1000) },
	} {
		t.Run(name, func(t *testing.T) {
			p := prepared(t, harness.Postgres(t, harness.Newest))
			p.killUncommitted()
			lose(p)
			before, slot := len(p.published()), p.confirmed()

			p.refuses(3, "kafka_lost_records", "run")

			if after := len(p.published()); after != before {
				t.Errorf("%d records were there, and now %d", before, after)
			}
			if at := p.confirmed(); at != slot {
				t.Errorf("the slot has moved from %X to %X", slot, at)
			}
		})
	}
}

// raiseFloors adds to the offsets up to which records were acknowledged.
func (p *pipeline) raiseFloors(by int64) {
	p.t.Helper()
	const mark = "sink/kafka/floors"
	var floors map[string]any
	for _, r := range p.kafka.Consume(p.t, p.checkpointTopic) {
		if string(r.Key) == mark && r.Value != nil {
			if err := json.Unmarshal(r.Value, &floors); err != nil {
				p.t.Fatal(err)
			}
		}
	}
	for _, topic := range floors["topics"].(map[string]any) {
		next := topic.(map[string]any)["next"].([]any)
		for i := range next {
			next[i] = int64(next[i].(float64)) + by
		}
	}
	value, err := json.Marshal(floors)
	if err != nil {
		p.t.Fatal(err)
	}
	p.kafka.Produce(p.t, harness.Record{Topic: p.checkpointTopic, Key: []byte(mark), Value: value})
}

// addPartitions also waits until they have leaders.
func (p *pipeline) addPartitions(topic string, count int32) {
	p.t.Helper()
	grow := kmsg.NewCreatePartitionsRequestTopic()
	grow.Topic, grow.Count = topic, count
	request := kmsg.NewPtrCreatePartitionsRequest()
	request.Topics = append(request.Topics, grow)
	p.ask(func(ctx context.Context, client *kgo.Client) error {
		response, err := request.RequestWith(ctx, client)
		if err != nil {
			return err
		}
		return kerr.ErrorForCode(response.Topics[0].ErrorCode)
	})
	harness.Eventually(p.t, patience, "the new partitions", func() error {
		var partitions int32
		p.ask(func(ctx context.Context, client *kgo.Client) error {
			asked := kmsg.NewMetadataRequestTopic()
			asked.Topic = kmsg.StringPtr(topic)
			request := kmsg.NewPtrMetadataRequest()
			request.Topics = append(request.Topics, asked)
			response, err := request.RequestWith(ctx, client)
			if err == nil {
				partitions = int32(len(response.Topics[0].Partitions))
			}
			return err
		})
		if partitions != count {
			return errors.New("not yet known")
		}
		return nil
	})
}

// deleteRecords does to some partitions what retention does in time: everything
// in them is gone.
func (p *pipeline) deleteRecords(topic string, partitions []int32) {
	p.t.Helper()
	doomed := kmsg.NewDeleteRecordsRequestTopic()
	doomed.Topic = topic
	for _, number := range partitions {
		partition := kmsg.NewDeleteRecordsRequestTopicPartition()
		partition.Partition, partition.Offset = number, -1
		doomed.Partitions = append(doomed.Partitions, partition)
	}
	request := kmsg.NewPtrDeleteRecordsRequest()
	request.Topics, request.TimeoutMillis = append(request.Topics, doomed), 10_000
	p.ask(func(ctx context.Context, client *kgo.Client) error {
		response, err := request.RequestWith(ctx, client)
		if err != nil {
			return err
		}
		var errs []error
		for _, partition := range response.Topics[0].Partitions {
			errs = append(errs, kerr.ErrorForCode(partition.ErrorCode))
		}
		return errors.Join(errs...)
	})
}

// ask talks to the broker as an administrator.
func (p *pipeline) ask(talk func(ctx context.Context, client *kgo.Client) error) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), time.Minute)
	defer cancel()
	client, err := kgo.NewClient(kgo.SeedBrokers(p.kafka.Addr))
	if err != nil {
		p.t.Fatal(err)
	}
	defer client.Close()
	if err := talk(ctx, client); err != nil {
		p.t.Fatal(err)
	}
}

func TestACompactedTopicIsRefused(t *testing.T) {
	t.Parallel()
	p := newPipeline(t, harness.Postgres(t, harness.Newest))
	p.exec(outboxTable)
	p.set("outbox.topic", p.topic("compacted"))
	p.kafka.CreateTopic(t, p.topic("compacted"), 1, "cleanup.policy", "compact,delete")
	p.initialise()
	events := orders(1, 3)
	p.commit(events...)

	stderr := p.refuses(1, "error", "run")
	if !strings.Contains(stderr, "kafka.topics.allow_compacted") || len(p.published()) > 0 {
		t.Errorf("%d events were published; stderr:\n%s", len(p.published()), stderr)
	}
	p.set("kafka.topics.allow_compacted", true)
	relay := p.start()
	p.awaitExactly(events...)
	p.stop(relay)
}

// TestARestartAfterCompaction: exactly those events come again that no checkpoint
// speaks of and whose record is compacted away, with those that follow on their
// keys.
func TestARestartAfterCompaction(t *testing.T) {
	t.Parallel()
	p := newPipeline(t, harness.Postgres(t, harness.Newest))
	p.exec(outboxTable)
	topic := p.topic("compacted")
	p.set("outbox.topic", topic)
	p.set("kafka.topics.allow_compacted", true)
	p.kafka.CreateTopic(t, topic, 1, "cleanup.policy", "compact", "min.cleanable.dirty.ratio", "0.001")
	p.initialise()
	p.killUncommittedOf(func(from int) []harness.Event {
		events := orders(from, 100)
		for i := range events {
			if i%2 == 0 { // no other event of its key
				events[i].Key = "alone-" + events[i].ID
			}
		}
		return events
	})
	before, last := p.published(), p.record().Last.Position
	var kept int
	var again []string
	for _, r := range before {
		switch {
		case position(t, r).Compare(last) <= 0: // committed
		case strings.HasPrefix(string(r.Key), "alone-"):
			kept++
		default:
			again = append(again, r.Header(outbox.HeaderID))
		}
	}
	p.compact(topic)
	left := ids(p.published())

	relay := p.start()
	more := orders(100_000, 40)
	p.commit(more...)
	want := slices.Concat(left, again, eventIDs(more))
	wantIDs(t, p.await(len(want)), want...)
	figure(t, "%d of %d records were left; of the events that no checkpoint spoke of %d were recognised, %d came again", len(left), len(before), kept, len(again))
	p.stop(relay)
}

// compact waits until each key has one record. Only segments that are closed are
// compacted, and one is closed when a record comes after its time.
func (p *pipeline) compact(topic string) {
	p.t.Helper()
	p.setTopic(topic, "segment.ms", "1")
	for range 2 {
		p.kafka.Produce(p.t, harness.Record{Topic: topic, Key: []byte("closes"), Value: []byte("the segment")})
	}
	harness.Eventually(p.t, 2*patience, "compaction", func() error {
		seen := map[string]bool{"closes": false}
		for _, r := range p.published() {
			if seen[string(r.Key)] {
				return errors.New("some key has two records")
			}
			seen[string(r.Key)] = string(r.Key) != "closes"
		}
		return nil
	})
	p.setTopic(topic, "segment.ms", "604800000") // what comes now stays
}

func (p *pipeline) setTopic(topic, name, value string) {
	p.t.Helper()
	setting := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
	setting.Name, setting.Value = name, &value
	resource := kmsg.NewIncrementalAlterConfigsRequestResource()
	resource.ResourceType, resource.ResourceName = kmsg.ConfigResourceTypeTopic, topic
	resource.Configs = append(resource.Configs, setting)
	request := kmsg.NewPtrIncrementalAlterConfigsRequest()
	request.Resources = append(request.Resources, resource)
	p.ask(func(ctx context.Context, client *kgo.Client) error {
		response, err := request.RequestWith(ctx, client)
		if err != nil {
			return err
		}
		return kerr.ErrorForCode(response.Resources[0].ErrorCode)
	})
}
