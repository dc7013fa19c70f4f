package kafka

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/walpost/walpost/outbox"
	"github.com/walpost/walpost/sink"
)

// routed is the sink of a process that routes in a certain way.
func routed(t *testing.T, cluster *kfake.Cluster, routing string) *Sink {
	t.Helper()
	cfg := testConfig(cluster)
	cfg.Routing = routing
	return prepared(t, cfg)
}

func sentTo(topic string, msgs []outbox.Message) []outbox.Message {
	msgs = slices.Clone(msgs)
	for i := range msgs {
		msgs[i].Topic = topic
	}
	return msgs
}

func wantMark(t *testing.T, kafka *Sink, spread bool, routing string) {
	t.Helper()
	mark := ownMark(t, kafka)
	if got := strings.Contains(mark, `"spread":true`); got != spread || !strings.Contains(mark, `"routing":"`+routing+`"`) {
		t.Errorf("the mark is %s", mark)
	}
}

func wantValues(t *testing.T, cluster *kfake.Cluster, topic string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, values(t, cluster, topic)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", topic, diff)
	}
}

// Events that would now go to another topic are found where they are. A hole is
// filled where its event belongs now, with all that follows of its key.
func TestEventsAreRoutedToAnotherTopic(t *testing.T) {
	cluster := fakeCluster(t)
	makeTopic(t, cluster, "topic", 1)
	makeTopic(t, cluster, "other", 2)
	before, after := routed(t, cluster, "before"), routed(t, cluster, "after")
	msgs := keyed("a", "b", "a", "b", "a", "b")
	predecessor(t, before, "topic")
	publish(t, cluster, pick(msgs, 0, 1, 3, 4)...) // a hole

	moved := sentTo("other", msgs)
	r := resume(t, after)
	r.through(t, moved[:5]...)
	if got, want := r.outcomes[sink.Duplicate], []uint64{0, 1, 3}; !slices.Equal(got, want) {
		t.Errorf("%d were skipped, not %d", got, want)
	}
	wantMark(t, after, true, "after")
	r.kill(t) // before it commits

	r = resume(t, after)
	if n := r.through(t, moved...); n != 5 {
		t.Errorf("%d of the 5 that were published were skipped", n)
	}
	wantMark(t, after, true, "after")
	more := sentTo("other", []outbox.Message{ours(6, "a")})
	if n := r.through(t, more...); n != 0 {
		t.Error("a new event is said to be a duplicate")
	}
	commit(t, r.session, 5, "position", "5")
	wantMark(t, after, true, "after") // message 5 is the first that nobody had published
	commit(t, r.session, 6, "position", "6")
	wantMark(t, after, false, "after")
	closed(t, r.session)
	wantValues(t, cluster, "topic", "0", "1", "3", "4")
	wantValues(t, cluster, "other", "2", "4", "5", "6")
}

func (r *resumed) kill(t *testing.T) {
	t.Helper()
	r.dialer.cut()
	closed(t, r.session)
}

// The mark tells of another routing before anything is sent, even if the floors
// of all topics are in it already.
func TestARoutingThatIsTakenBack(t *testing.T) {
	cluster := fakeCluster(t)
	makeTopic(t, cluster, "topic", 1)
	makeTopic(t, cluster, "other", 1)
	before, after := routed(t, cluster, "before"), routed(t, cluster, "after")
	predecessor(t, before, "topic", "other")
	msgs := keyed("a", "b", "a", "b")
	r := resume(t, after)
	r.through(t, sentTo("other", msgs)...)
	r.kill(t)
	r = resume(t, before)
	if n := r.through(t, msgs...); n != 4 {
		t.Errorf("%d of 4 were skipped", n)
	}
	wantMark(t, before, true, "before")
	closed(t, r.session)
	wantValues(t, cluster, "other", "0", "1", "2", "3")
}

func TestARoutingThatIsNotKnown(t *testing.T) {
	cluster := fakeCluster(t)
	makeTopic(t, cluster, "topic", 1)
	unknown, known := prepared(t, testConfig(cluster)), routed(t, cluster, "known")
	predecessor(t, unknown, "topic")
	predecessor(t, known, "topic")
	wantMark(t, known, false, "known")
	predecessor(t, unknown, "topic")
	wantMark(t, known, false, "known")
}

// Partitions may be added while the routing changes.
func TestAnotherRoutingOverMorePartitions(t *testing.T) {
	cluster := fakeCluster(t)
	makeTopic(t, cluster, "topic", 1)
	before, after := routed(t, cluster, "before"), routed(t, cluster, "after")
	predecessor(t, before, "topic")
	publish(t, cluster, keyed("a", "b")...)
	addPartitions(t, cluster, "topic", 3)
	var msgs []outbox.Message
	for _, m := range keyed("a", "b", "c") {
		msgs = append(msgs, changed(m, func(m *outbox.Message) { m.Partition = 2 }))
	}
	r := resume(t, after)
	if n := r.through(t, msgs...); n != 2 {
		t.Errorf("%d of 2 were skipped", n)
	}
	commit(t, r.session, 3, "position", "3")
	wantMark(t, after, false, "after")
	closed(t, r.session)
}

// The id of an event may come from another column now.
func TestAnotherRoutingWithOtherIDs(t *testing.T) {
	cluster := fakeCluster(t)
	makeTopic(t, cluster, "topic", 1)
	before, after := routed(t, cluster, "before"), routed(t, cluster, "after")
	predecessor(t, before, "topic")
	publish(t, cluster, keyed("a", "b")...)
	renamed := changed(ours(0, "a"), func(m *outbox.Message) {
		m.ID = []byte("another id")
		identified(m, ourSource)
	})
	r := resume(t, after)
	if n := r.through(t, renamed, ours(1, "b")); n != 1 {
		t.Errorf("%d were skipped, one is known by its id", n)
	}
}

// A topic that is gone is not looked at; what the others hold is still found.
func TestAnotherRoutingAndATopicIsGone(t *testing.T) {
	cluster := fakeCluster(t)
	makeTopic(t, cluster, "topic", 1)
	makeTopic(t, cluster, "other", 1)
	predecessor(t, routed(t, cluster, "before"), "topic", "other")
	msgs := sentTo("other", keyed("a", "b", "c"))
	publish(t, cluster, pick(msgs, 0, 1)...)
	deleteTopic(t, cluster, "topic")
	log := &bytes.Buffer{}
	cfg := logged(testConfig(cluster), log)
	cfg.Routing = "after"
	r := resume(t, newSink(t, cfg))
	if n := r.through(t, msgs...); n != 2 {
		t.Errorf("%d of 2 were skipped", n)
	}
	closed(t, r.session)
	wantWarning(t, log, "topic")
	wantValues(t, cluster, "other", "0", "1", "2")
}

// One that was made again has lost records, whatever the events' topic is now.
func TestAnotherRoutingAndATopicIsAnother(t *testing.T) {
	cluster := fakeCluster(t)
	makeTopic(t, cluster, "topic", 1)
	makeTopic(t, cluster, "other", 1)
	predecessor(t, routed(t, cluster, "before"), "topic")
	deleteTopic(t, cluster, "topic")
	makeTopic(t, cluster, "topic", 1)
	s, _ := opened(t, routed(t, cluster, "after"))
	n, err := s.Send(t.Context(), sentTo("other", keyed("a")))
	if condition, retryable, err := meaning(t, err); n != 0 || condition != condLostRecords || retryable {
		t.Errorf("%d taken, condition %q, retryable %v: %v", n, condition, retryable, err)
	}
	if got := cluster.PartitionInfo("other", 0).HighWatermark; got != 0 {
		t.Errorf("%d messages were written", got)
	}
}

// An event may have records in several places. The one where it belongs decides
// whether it stands in order there.
func TestTheRecordWhereAnEventBelongsDecides(t *testing.T) {
	here, elsewhere := place{"topic", 0}, place{"other", 0}
	msgs := keyed("a", "a")
	for name, order := range map[string][]place{"read first": {here, elsewhere}, "read last": {elsewhere, here}} {
		t.Run(name, func(t *testing.T) {
			held := newTail(&msgs[0], nil)
			for _, at := range order {
				held.add(at, 10, kafkaRecord(&msgs[1]))
				if at == here {
					held.add(at, 11, kafkaRecord(&msgs[0])) // it was missing at first
				}
			}
			for i, want := range []bool{true, false} {
				if duplicate, err := held.skip(&msgs[i], here); duplicate != want || err != nil {
					t.Errorf("event %d: skipped %v, want %v (%v)", i, duplicate, want, err)
				}
			}
		})
	}
}
