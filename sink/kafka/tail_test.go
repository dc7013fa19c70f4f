package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"pgregory.net/rapid"

	"github.com/walpost/walpost/outbox"
	"github.com/walpost/walpost/sink"
)

const ourSource = "7000000000000000001/shop/test/0"

// ours is the i-th event of our source, to partition 0 of topic.
func ours(i int, key string) outbox.Message {
	m := event("topic", 0, i)
	m.Key = []byte("secret " + key)
	m.HashKey = m.Key
	identified(&m, ourSource)
	return m
}

func identified(m *outbox.Message, source string) {
	m.Headers = []outbox.Header{
		{Key: []byte(outbox.HeaderID), Value: m.ID},
		{Key: []byte(outbox.HeaderSource), Value: []byte(source)},
		{Key: []byte(outbox.HeaderPosition), Value: []byte(m.Pos.String())},
	}
}

func changed(m outbox.Message, change func(*outbox.Message)) outbox.Message {
	m.Headers = slices.Clone(m.Headers)
	change(&m)
	return m
}

// keyed makes one event of ours per key.
func keyed(keys ...string) []outbox.Message {
	msgs := make([]outbox.Message, len(keys))
	for i, key := range keys {
		msgs[i] = ours(i, key)
	}
	return msgs
}

func pick(msgs []outbox.Message, indices ...int) []outbox.Message {
	picked := make([]outbox.Message, len(indices))
	for i, index := range indices {
		picked[i] = msgs[index]
	}
	return picked
}

// predecessor leaves the floors of topics at their ends, and nothing committed
// above them.
func predecessor(t *testing.T, kafka *Sink, topics ...string) {
	t.Helper()
	s, _ := opened(t, kafka)
	for _, topic := range topics {
		if _, err := s.prepare(t.Context(), topic); err != nil {
			t.Fatal(err)
		}
	}
	closed(t, s)
}

// succession is a cluster with a topic of one partition, to which sessions write
// from now on that have a predecessor.
func succession(t *testing.T) (*kfake.Cluster, *Sink) {
	t.Helper()
	cluster := fakeCluster(t)
	makeTopic(t, cluster, "topic", 1)
	kafka := prepared(t, testConfig(cluster))
	predecessor(t, kafka, "topic")
	return cluster, kafka
}

func closed(t *testing.T, s *session) {
	t.Helper()
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// publish writes records past the sink, as a predecessor or a stranger would.
func publish(t *testing.T, cluster *kfake.Cluster, msgs ...outbox.Message) {
	t.Helper()
	v := &view{brokers: cluster.ListenAddrs()}
	cl := v.client(t, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	for _, r := range recordsOf(msgs) {
		if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
}

func recordsOf(msgs []outbox.Message) []*kgo.Record {
	records := make([]*kgo.Record, len(msgs))
	for i, m := range msgs {
		records[i] = &kgo.Record{Topic: m.Topic, Partition: m.Partition, Key: m.Key, Value: m.Value}
		for _, h := range m.Headers {
			records[i].Headers = append(records[i].Headers, kgo.RecordHeader{Key: string(h.Key), Value: h.Value})
		}
	}
	return records
}

// publishOpen writes records in a transaction and returns a function that ends
// it.
func publishOpen(t *testing.T, cluster *kfake.Cluster, msgs ...outbox.Message) (end func(kgo.TransactionEndTry)) {
	t.Helper()
	v := &view{brokers: cluster.ListenAddrs()}
	cl := v.client(t, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.TransactionalID("stranger"))
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := cl.ProduceSync(t.Context(), recordsOf(msgs)...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	return func(how kgo.TransactionEndTry) {
		if err := cl.EndTransaction(t.Context(), how); err != nil {
			t.Fatal(err)
		}
	}
}

// resume opens a session that notes what it settles as which.
func resume(t *testing.T, kafka *Sink) *resumed {
	t.Helper()
	r := &resumed{settled: make(chan uint64, 1<<16), outcomes: map[sink.Outcome][]uint64{}}
	s, _, err := kafka.Open(t.Context(), func(seqs []uint64, o sink.Outcome) {
		if !slices.IsSorted(seqs) {
			t.Errorf("settled out of order: %d", seqs)
		}
		r.outcomes[o] = append(r.outcomes[o], seqs...)
		for _, seq := range seqs {
			r.settled <- seq
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close(context.Background()) })
	r.session = s.(*session)
	return r
}

type resumed struct {
	*session
	settled  chan uint64
	outcomes map[sink.Outcome][]uint64 // read it once everything is settled
}

// through sends messages, waits until they are settled, and returns how many
// were duplicates.
func (r *resumed) through(t *testing.T, msgs ...outbox.Message) int {
	t.Helper()
	before := len(r.outcomes[sink.Duplicate])
	mustSend(t, r.session, msgs...)
	collect(t, r.session, r.settled, len(msgs))
	return len(r.outcomes[sink.Duplicate]) - before
}

func values(t *testing.T, cluster *kfake.Cluster, topic string) []string {
	t.Helper()
	v := &view{brokers: cluster.ListenAddrs()}
	var all []string
	for _, r := range v.published(t, topic) {
		all = append(all, strings.TrimPrefix(string(r.Value), "secret payload "))
	}
	return all
}

func TestWhatAPredecessorPublishedIsSkipped(t *testing.T) {
	twoKeys := keyed("a", "b", "a", "b", "a", "b")
	unkeyed := slices.Clone(twoKeys)
	for i := range unkeyed {
		unkeyed[i].Key = nil
	}
	stranger := func(source string) []outbox.Message {
		msgs := slices.Clone(twoKeys)
		for i := range msgs {
			identified(&msgs[i], source)
		}
		return msgs
	}
	for name, c := range map[string]struct {
		there, send []outbox.Message
		want        []string // payloads that are sent
	}{
		"all":                          {twoKeys, twoKeys, nil},
		"nothing":                      {nil, twoKeys, []string{"0", "1", "2", "3", "4", "5"}},
		"the first half":               {twoKeys[:3], twoKeys, []string{"3", "4", "5"}},
		"all but one":                  {pick(twoKeys, 0, 1, 3, 4, 5), twoKeys, []string{"2", "4"}},
		"all but the first":            {twoKeys[1:], twoKeys, []string{"0", "2", "4"}},
		"only the last of a key":       {pick(twoKeys, 5), twoKeys, []string{"0", "1", "2", "3", "4", "5"}},
		"all, twice":                   {append(slices.Clone(twoKeys), twoKeys...), twoKeys, nil},
		"all, the first again":         {append(slices.Clone(twoKeys), twoKeys[0]), twoKeys, []string{"2", "4"}},
		"all, one late":                {pick(twoKeys, 0, 1, 4, 3, 2, 5), twoKeys, []string{"4"}},
		"without keys, all but one":    {pick(unkeyed, 5, 4, 3, 1, 0), unkeyed, []string{"2"}},
		"another pipeline's":           {stranger("7000000000000000001/shop/other/0"), twoKeys[:2], []string{"0", "1"}},
		"another pipeline's and ours":  {append(stranger("another"), twoKeys...), twoKeys, nil},
		"what was confirmed, and more": {twoKeys, twoKeys[2:], nil},
		"what was confirmed came late": {pick(twoKeys, 2, 3, 0, 1), twoKeys[1:4], []string{"2", "3"}},
		"records that are not walpost's": {
			[]outbox.Message{
				changed(twoKeys[0], func(m *outbox.Message) { m.Headers = nil }),
				changed(twoKeys[0], func(m *outbox.Message) { m.Headers = m.Headers[1:] }),
				changed(twoKeys[0], func(m *outbox.Message) { m.Headers = m.Headers[:2] }),
				changed(twoKeys[0], func(m *outbox.Message) { m.Headers[0].Value = nil }),
				changed(twoKeys[0], func(m *outbox.Message) { m.Headers[1].Value = nil }),
				changed(twoKeys[0], func(m *outbox.Message) { m.Headers[2].Value = []byte("00000001-0000") }),
			},
			twoKeys[:1],
			[]string{"0"},
		},
		"headers that a mapping has added": {
			[]outbox.Message{changed(twoKeys[0], func(m *outbox.Message) {
				m.Headers = append(m.Headers, outbox.Header{Key: []byte("id"), Value: []byte("of something else")})
			})},
			twoKeys[:1],
			nil,
		},
		"messages without a source": {
			[]outbox.Message{event("topic", 0, 0)},
			[]outbox.Message{event("topic", 0, 0)},
			[]string{"0"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			cluster, kafka := succession(t)
			publish(t, cluster, c.there...)

			r := resume(t, kafka)
			if n := r.through(t, c.send...); n != len(c.send)-len(c.want) {
				t.Errorf("%d duplicates are reported", n)
			}
			closed(t, r.session)
			if diff := cmp.Diff(c.want, values(t, cluster, "topic")[len(c.there):], cmp.Transformer("", func(s []string) []string { return append([]string{}, s...) })); diff != "" {
				t.Errorf("sent (-want +got):\n%s", diff)
			}
		})
	}
}

// Whatever holes and repetitions crashes leave, and wherever each life sends its
// events, every event is published in the end, and the last records of each key
// are in order where they belong in the end.
func TestTailsKeepTheLastOccurrencesInOrder(t *testing.T) {
	const events = 12
	places := []place{{"topic", 0}, {"other", 0}}
	rapid.Check(t, func(t *rapid.T) {
		keys := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c"}), events, events).Draw(t, "keys")
		msgs := keyed(keys...)
		logs := map[place][]int{} // events by offset
		// Events move to another place and back, or are committed and don't come
		// again. With both, order can be lost: what was sent again elsewhere is not
		// sent again here when it is committed.
		moves, from := rapid.Bool().Draw(t, "moves"), 0
		life := func(belongs place, stop int, lost func() bool) {
			if from == events {
				return
			}
			settled, hole := from, false
			held := newTail(&msgs[from], nil)
			for _, at := range rapid.Permutation(places).Draw(t, "read") {
				for offset, i := range logs[at] {
					held.add(at, int64(offset), kafkaRecord(&msgs[i]))
				}
			}
			for i := from; i < stop; i++ {
				duplicate := false
				if !held.passed(&msgs[i]) {
					var err error
					if duplicate, err = held.skip(&msgs[i], belongs); err != nil {
						t.Fatal(err)
					}
				}
				switch {
				case duplicate:
				case !lost():
					logs[belongs] = append(logs[belongs], i)
				default: // a message is lost on the way: the session ends some time later
					stop, hole = min(stop, i+1+rapid.IntRange(0, 3).Draw(t, "later")), true
				}
				if !hole {
					settled = i + 1
				}
			}
			if !moves {
				from = rapid.IntRange(from, settled).Draw(t, "committed")
			}
		}
		belongs := places[0]
		for range rapid.IntRange(0, 6).Draw(t, "crashes") {
			if moves {
				belongs = rapid.SampledFrom(places).Draw(t, "belongs")
			}
			life(belongs, rapid.IntRange(0, events).Draw(t, "stop"), func() bool { return rapid.IntRange(0, 5).Draw(t, "lost") == 0 })
		}
		life(belongs, events, func() bool { return false })

		last := map[place]map[int]int{}
		published := map[int]bool{}
		for at, log := range logs {
			last[at] = map[int]int{}
			for offset, i := range log {
				last[at][i], published[i] = offset, true
			}
		}
		newest := map[string]int{}
		for i := range events {
			if !published[i] {
				t.Fatalf("event %d is missing; logs %v", i, logs)
			}
			offset, ok := last[belongs][i]
			if !ok {
				continue
			}
			if offset < newest[keys[i]] {
				t.Fatalf("event %d's last record in %s comes before an earlier event's of key %s; logs %v", i, belongs, keys[i], logs)
			}
			newest[keys[i]] = offset
		}
	})
}

func kafkaRecord(m *outbox.Message) *sarama.Record {
	r := &sarama.Record{Key: m.Key}
	for _, h := range m.Headers {
		r.Headers = append(r.Headers, &sarama.RecordHeader{Key: h.Key, Value: h.Value})
	}
	return r
}

func TestRecordsOfAnAbortedTransactionDoNotCount(t *testing.T) {
	cluster, kafka := succession(t)
	msgs := keyed("a", "b", "a", "b")
	publishOpen(t, cluster, msgs[:2]...)(kgo.TryAbort)
	publishOpen(t, cluster, msgs[2:3]...)(kgo.TryCommit)

	r := resume(t, kafka)
	if n := r.through(t, msgs...); n != 0 { // event 2 is there, but 0 of its key is not
		t.Errorf("%d were skipped", n)
	}
	closed(t, r.session)
	r = resume(t, kafka)
	if n := r.through(t, msgs...); n != 4 {
		t.Errorf("then %d were skipped", n)
	}
}

// What comes after an open transaction can't be read. Nothing is sent on a guess.
func TestAnOpenTransactionOfAStrangerIsWaitedFor(t *testing.T) {
	cluster := fakeCluster(t)
	makeTopic(t, cluster, "topic", 1)
	cfg := testConfig(cluster)
	kafka := prepared(t, cfg)
	predecessor(t, kafka, "topic")
	end := publishOpen(t, cluster, changed(ours(9, "x"), func(m *outbox.Message) { m.Headers = nil }))
	publish(t, cluster, ours(0, "a"))

	cfg.StallTimeout = 100 * time.Millisecond
	impatient, _ := opened(t, newSink(t, cfg))
	n, err := impatient.Send(t.Context(), keyed("a"))
	if condition, retryable, err := meaning(t, err); n != 0 || condition != condStalled || !retryable || !strings.Contains(remedyOf(err), "transaction") {
		t.Errorf("%d taken, condition %q, retryable %v: %v", n, condition, retryable, err)
	}
	end(kgo.TryCommit)
	if n := resume(t, kafka).through(t, keyed("a")...); n != 1 {
		t.Errorf("%d were skipped", n)
	}
}

func TestAnotherEventAtAPositionStops(t *testing.T) {
	cluster, kafka := succession(t)
	other := changed(ours(1, "a"), func(m *outbox.Message) {
		m.ID = []byte("id-of-another")
		identified(m, ourSource)
	})
	publish(t, cluster, ours(0, "a"), other)

	r := resume(t, kafka)
	n, err := r.Send(t.Context(), keyed("a", "a", "a"))
	condition, retryable, err := meaning(t, err)
	if n != 1 || condition != condDiverged || retryable {
		t.Errorf("%d taken, condition %q, retryable %v: %v", n, condition, retryable, err)
	}
	for _, part := range []string{"topic/0", ours(1, "a").Pos.String(), "id-1", "id-of-another"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error does not name %s: %v", part, err)
		}
	}
	if condition, _, _ := outcome(t, r.session); condition != condDiverged {
		t.Errorf("the session has ended with condition %q", condition)
	}
	if got := values(t, cluster, "topic"); len(got) != 2 {
		t.Errorf("the topic holds %v", got)
	}
}

// setFloor leaves a floor in the mark.
func setFloor(t *testing.T, kafka *Sink, floor int64) {
	t.Helper()
	s, _ := opened(t, kafka)
	if _, err := s.prepare(t.Context(), "topic"); err != nil {
		t.Fatal(err)
	}
	s.floors.mu.Lock()
	s.floors.topics["topic"].partitions[0].next, s.floors.moved = floor, true
	s.floors.mu.Unlock()
	commit(t, s, 0, "position", "0")
	closed(t, s)
}

func TestAFloorAboveTheEndStops(t *testing.T) {
	cluster := fakeCluster(t)
	makeTopic(t, cluster, "topic", 1)
	kafka := prepared(t, testConfig(cluster))
	publish(t, cluster, keyed("a", "b")...)
	setFloor(t, kafka, 3)

	s, _ := opened(t, kafka)
	n, err := s.Send(t.Context(), keyed("a"))
	condition, retryable, err := meaning(t, err)
	if n != 0 || condition != condLostRecords || retryable || !strings.Contains(err.Error(), "topic/0") {
		t.Errorf("%d taken, condition %q, retryable %v: %v", n, condition, retryable, err)
	}
	if got := values(t, cluster, "topic"); len(got) != 2 {
		t.Errorf("the topic holds %v", got)
	}
}

func TestAFloorBelowTheStartOfTheLog(t *testing.T) {
	cluster, kafka := succession(t)
	msgs := keyed("a", "b", "c")
	publish(t, cluster, msgs...)
	deleteRecords(t, cluster, "topic", 2)

	r := resume(t, kafka)
	if n := r.through(t, msgs...); n != 1 {
		t.Errorf("%d were skipped, one has been retained", n)
	}
}

func deleteRecords(t *testing.T, cluster *kfake.Cluster, topic string, before int64) {
	t.Helper()
	partition := kmsg.NewDeleteRecordsRequestTopicPartition()
	partition.Offset = before
	of := kmsg.NewDeleteRecordsRequestTopic()
	of.Topic, of.Partitions = topic, append(of.Partitions, partition)
	req := kmsg.NewPtrDeleteRecordsRequest()
	req.Topics = append(req.Topics, of)
	v := &view{brokers: cluster.ListenAddrs()}
	for _, shard := range v.client(t).RequestSharded(t.Context(), req) {
		if shard.Err != nil {
			t.Fatal(shard.Err)
		}
		if err := kerr.ErrorForCode(shard.Resp.(*kmsg.DeleteRecordsResponse).Topics[0].Partitions[0].ErrorCode); err != nil {
			t.Fatal(err)
		}
	}
}

func addPartitions(t *testing.T, cluster *kfake.Cluster, topic string, count int32) {
	t.Helper()
	of := kmsg.NewCreatePartitionsRequestTopic()
	of.Topic, of.Count = topic, count
	req := kmsg.NewPtrCreatePartitionsRequest()
	req.Topics = append(req.Topics, of)
	v := &view{brokers: cluster.ListenAddrs()}
	resp, err := req.RequestWith(t.Context(), v.client(t))
	if err == nil {
		err = kerr.ErrorForCode(resp.Topics[0].ErrorCode)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Events that now belong in other partitions are found where they were, also by
// the session after the one that noticed, until they are committed.
func TestPartitionsAreAddedToATopic(t *testing.T) {
	cluster := fakeCluster(t)
	makeTopic(t, cluster, "topic", 2)
	kafka := prepared(t, testConfig(cluster))
	var msgs []outbox.Message
	for i := range 60 {
		msgs = append(msgs, changed(ours(i, fmt.Sprint("k", i%20)), func(m *outbox.Message) { m.Partition = -1 }))
	}
	r := resume(t, kafka)
	r.through(t, msgs[:40]...)
	closed(t, r.session)

	addPartitions(t, cluster, "topic", 7)
	for life, skipped := range []int{40, 50} {
		r = resume(t, kafka)
		if n := r.through(t, msgs[:skipped+10]...); n != skipped {
			t.Errorf("life %d: %d of %d were skipped", life, n, skipped)
		}
		if !strings.Contains(ownMark(t, kafka), `"spread":true`) {
			t.Errorf("life %d: the mark says nothing of the change: %s", life, ownMark(t, kafka))
		}
		closed(t, r.session)
	}
	r = resume(t, kafka)
	more := changed(ours(60, "k"), func(m *outbox.Message) { m.Partition = -1 })
	if n := r.through(t, append(msgs, more)...); n != 60 {
		t.Errorf("%d of 60 were skipped", n)
	}
	commit(t, r.session, 60, "position", "60")
	if mark := ownMark(t, kafka); !strings.Contains(mark, "spread") {
		t.Errorf("the first message past the tail is not committed, and the mark is %s", mark)
	}
	commit(t, r.session, 61, "position", "61")
	if mark := ownMark(t, kafka); strings.Contains(mark, "spread") {
		t.Errorf("everything old is committed, and the mark is %s", mark)
	}
	if got := values(t, cluster, "topic"); len(got) != 61 {
		t.Errorf("%d records for 61 events", len(got))
	}
}

// A floor must not pass the records of later events that are in the tail, below
// the record of one that was missing and is sent now.
func TestFloorsStayWhileThereIsATail(t *testing.T) {
	cluster, kafka := succession(t)
	msgs := keyed("a", "b", "c", "d")
	publish(t, cluster, pick(msgs, 0, 2, 3)...)

	r := resume(t, kafka)
	if n := r.through(t, msgs[:2]...); n != 1 {
		t.Errorf("%d were skipped", n)
	}
	commit(t, r.session, 2, "position", "2")
	closed(t, r.session)

	r = resume(t, kafka)
	if n := r.through(t, msgs[2:]...); n != 2 {
		t.Errorf("%d of the 2 that are above the floor were skipped", n)
	}
	if n := r.through(t, ours(4, "a")); n != 0 {
		t.Errorf("%d were skipped past the tail", n)
	}
	if p := r.topics["topic"].partitions[0]; p.tail != nil || p.unread {
		t.Error("the tail is still looked at")
	}
	commit(t, r.session, 5, "position", "5")
	if mark := ownMark(t, kafka); !strings.Contains(mark, `"next":[5]`) {
		t.Errorf("everything is committed, the mark is %s", mark)
	}
}

func TestALargeTail(t *testing.T) {
	const n = 20_000
	cluster := fakeCluster(t)
	makeTopic(t, cluster, "topic", 1)
	kafka := prepared(t, testConfig(cluster))
	msgs := make([]outbox.Message, n)
	for i := range msgs {
		msgs[i] = ours(i, fmt.Sprint(i%100))
	}
	r := resume(t, kafka)
	r.through(t, msgs...)
	closed(t, r.session)

	r = resume(t, kafka)
	if skipped := r.through(t, msgs[:10]...); skipped != 10 {
		t.Errorf("%d of 10 were skipped", skipped)
	}
	if skipped := r.through(t, msgs[10:]...); skipped != n-10 {
		t.Errorf("%d of %d were skipped", skipped, n-10)
	}
	closed(t, r.session)

	// What was committed is not remembered.
	r = resume(t, kafka)
	if skipped := r.through(t, msgs[n-5:]...); skipped != 5 {
		t.Errorf("%d of 5 were skipped", skipped)
	}
	if held := len(r.topics["topic"].partitions[0].tail.events); held != 5 {
		t.Errorf("%d events are remembered, 5 may come", held)
	}
}

// Sending needs nothing allocated for a topic whose tail is passed.
func TestAPassedTailCostsNothing(t *testing.T) {
	m := ours(0, "a")
	p := &partition{topic: "topic", floor: &partitionFloor{}}
	to := &topic{partitions: []*partition{p}}
	acks := make(chan *sarama.ProducerMessage, 1)
	s := &session{
		connection: &connection{producer: inputOnly{input: acks}},
		cfg:        Config{}.withDefaults(),
		floors:     &floors{},
		topics:     map[string]*topic{"topic": to},
		done:       make(chan struct{}),
	}
	s.spares.list = &s.carriers
	for kind, ledger := range map[string]ledger{"continuous": continuous{s}, "atomic": &transactional{s: s, open: true}} {
		s.ledger = ledger
		allocs := fewestAllocs(func() {
			if _, err := s.Send(t.Context(), []outbox.Message{m}); err != nil {
				t.Fatal(err)
			}
			c := (<-acks).Metadata.(*carrier)
			s.spares.putBack(c)
		})
		if allocs > 1 { // the slice that is passed to Send
			t.Errorf("%v allocations in sending a message in %s session", allocs, kind)
		}
	}
}

// inputOnly is a producer that only takes messages.
type inputOnly struct {
	sarama.AsyncProducer
	input chan *sarama.ProducerMessage
}

func (p inputOnly) Input() chan<- *sarama.ProducerMessage { return p.input }

func TestATailThatCannotBeRead(t *testing.T) {
	for name, c := range map[string]struct {
		fault     kfake.Fault
		condition string
	}{
		"may not be read":      {kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Err: kerr.TopicAuthorizationFailed}, condAuthFailed},
		"has a broken log":     {kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Err: kerr.KafkaStorageError}, ""},
		"has no end":           {kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Err: kerr.TopicAuthorizationFailed, Count: -1}, condAuthFailed},
		"has another leader":   {kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Err: kerr.NotLeaderForPartition}, condUnreachable},
		"begins later by then": {kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Err: kerr.OffsetOutOfRange}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			cluster, kafka := succession(t)
			publish(t, cluster, keyed("a", "b")...)

			r := resume(t, kafka)
			c.fault.Topic = "topic"
			fault := cluster.Fault(c.fault)
			n, err := r.Send(t.Context(), keyed("a", "b"))
			if condition, retryable, err := meaning(t, err); n != 0 || condition != c.condition || !retryable {
				t.Errorf("%d taken, condition %q, retryable %v: %v", n, condition, retryable, err)
			}
			if _, _, err := outcome(t, r.session); err == nil {
				t.Error("the session has no error")
			}
			closed(t, r.session)
			fault.Remove()

			if n := resume(t, kafka).through(t, keyed("a", "b")...); n != 2 {
				t.Errorf("the next session has skipped %d", n)
			}
		})
	}
}

// holdFetch holds back the answers to requests for records of topic.
func holdFetch(cluster *kfake.Cluster) (asked <-chan struct{}, release func()) {
	arrived, released := make(chan struct{}, 1<<10), make(chan struct{})
	cluster.ControlKey(int16(kmsg.Fetch), func(kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		select {
		case arrived <- struct{}{}:
		default:
		}
		<-released
		return nil, nil, false
	})
	return arrived, func() { close(released) }
}

func TestCloseWhileATailIsRead(t *testing.T) {
	for name, patient := range map[string]bool{"patiently": true, "at once": false} {
		t.Run(name, func(t *testing.T) {
			cluster, kafka := succession(t)
			publish(t, cluster, keyed("a", "b")...)
			end := publishOpen(t, cluster, changed(ours(9, "x"), func(m *outbox.Message) { m.Headers = nil }))

			r := resume(t, kafka)
			asked, release := holdFetch(cluster)
			sent := make(chan error, 1)
			go func() {
				_, err := r.Send(t.Context(), keyed("a", "b"))
				sent <- err
			}()
			<-asked
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			result := make(chan error, 1)
			go func() { result <- r.Close(ctx) }()
			<-r.closing
			if !patient {
				cancel()
				<-r.Done()
			}
			release()
			if err := <-sent; err == nil || patient && !errors.Is(err, errClosed) {
				t.Errorf("send: %v", err)
			}
			if err := <-result; err != nil { // nothing was outstanding
				t.Errorf("close: %v", err)
			}
			if len(r.settled) != 0 {
				t.Errorf("%d were settled", len(r.settled))
			}
			end(kgo.TryAbort)
			if n := resume(t, kafka).through(t, keyed("a", "b")...); n != 2 {
				t.Errorf("the next session has skipped %d", n)
			}
		})
	}
}

func TestTheEndOfAContextInterruptsTheReadingOfATail(t *testing.T) {
	cluster, kafka := succession(t)
	publish(t, cluster, keyed("a")...)
	s, _ := opened(t, kafka)
	asked, release := holdFetch(cluster)
	defer release()
	ctx, end := context.WithCancel(t.Context())
	go func() {
		<-asked
		end()
	}()
	n, err := s.Send(ctx, keyed("a"))
	if n != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("send took %d: %v", n, err)
	}
	select {
	case <-s.Done():
	default:
		t.Error("Send has returned and the session has not ended yet")
	}
}

// Duplicates and renewals meet: those skipped are settled before the session
// ends.
func TestARenewedSessionSettlesItsDuplicates(t *testing.T) {
	cluster := fakeCluster(t)
	makeTopic(t, cluster, "topic", 1)
	cfg := testConfig(cluster)
	cfg.renewAfter = 2
	kafka := prepared(t, cfg)
	predecessor(t, kafka, "topic")
	msgs := keyed("a", "b", "c", "d", "e", "f")
	publish(t, cluster, msgs[:3]...)
	r := resume(t, kafka)
	if n, err := r.Send(t.Context(), msgs); n != 5 || !errors.Is(err, errRenew) {
		t.Errorf("%d were taken: %v", n, err)
	}
	closed(t, r.session)
	if diff := cmp.Diff(map[sink.Outcome][]uint64{sink.Duplicate: {0, 1, 2}, sink.Delivered: {3, 4}}, r.outcomes); diff != "" {
		t.Errorf("settled (-want +got):\n%s", diff)
	}
}
