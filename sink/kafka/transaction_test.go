package kafka

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/walpost/walpost/outbox"
	"github.com/walpost/walpost/sink"
)

func atomicConfig(c *kfake.Cluster) Config {
	cfg := testConfig(c)
	cfg.Atomic = true
	return cfg
}

// inTransaction is an atomic session with one message committed and one more
// settled.
func inTransaction(t *testing.T, cluster *kfake.Cluster, cfg Config) (*Sink, *session) {
	t.Helper()
	makeTopic(t, cluster, "topic", 2)
	kafka := prepared(t, cfg)
	s, settled := opened(t, kafka)
	mustSend(t, s, event("topic", 0, 0))
	commit(t, s, 1, "position", "1")
	mustSend(t, s, event("topic", 0, 1))
	collect(t, s, settled, 2)
	return kafka, s
}

// wantCommitted checks what a successor finds: values of the topic, and the mark.
func wantCommitted(t *testing.T, cluster *kfake.Cluster, kafka *Sink, position string, want ...string) {
	t.Helper()
	s, marks, err := kafka.Open(t.Context(), func([]uint64, sink.Outcome) {})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if got := string(marks["position"]); got != position {
		t.Errorf("the position is %s, want %s", got, position)
	}
	if diff := cmp.Diff(want, values(t, cluster, "topic")); diff != "" {
		t.Errorf("values (-want +got):\n%s", diff)
	}
}

// Whatever refuses a commit ends the session with the reason, and the successor
// finds the commit before.
func TestARefusedCommitEndsTheSession(t *testing.T) {
	for name, c := range map[string]struct {
		fault     kfake.Fault
		condition string
		says      string
		final     bool
	}{
		"fenced":                             {kfake.Fault{Keys: []kmsg.Key{kmsg.EndTxn}, Err: kerr.ProducerFenced}, condTakenOver, "another relay", false},
		"in no transaction":                  {kfake.Fault{Keys: []kmsg.Key{kmsg.EndTxn}, Err: kerr.InvalidTxnState}, condTakenOver, "", false},
		"the transactional id has expired":   {kfake.Fault{Keys: []kmsg.Key{kmsg.EndTxn}, Err: kerr.InvalidProducerIDMapping}, "", "transactional.id.expiration.ms", false},
		"the producer is unknown":            {kfake.Fault{Keys: []kmsg.Key{kmsg.EndTxn}, Err: kerr.UnknownProducerID}, "", "producer.id.expiration.ms", false},
		"not permitted to use the id":        {kfake.Fault{Keys: []kmsg.Key{kmsg.AddPartitionsToTxn}, Err: kerr.TransactionalIDAuthorizationFailed}, condAuthFailed, "", false},
		"not permitted to write the marks":   {kfake.Fault{Keys: []kmsg.Key{kmsg.AddPartitionsToTxn}, Topic: checkpointTopic, Err: kerr.TopicAuthorizationFailed}, condAuthFailed, "", false},
		"fenced when partitions are added":   {kfake.Fault{Keys: []kmsg.Key{kmsg.AddPartitionsToTxn}, Err: kerr.ProducerFenced}, condTakenOver, "another relay", false},
		"fenced when the marks are produced": {kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: checkpointTopic, Err: kerr.InvalidProducerEpoch}, condTakenOver, "another relay", false},
		"a mark too large for its topic":     {kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: checkpointTopic, Err: kerr.MessageTooLarge}, "", checkpointTopic, true},
	} {
		t.Run(name, func(t *testing.T) {
			cluster := fakeCluster(t)
			kafka, s := inTransaction(t, cluster, atomicConfig(cluster))
			c.fault.Count = -1
			handle := cluster.Fault(c.fault)
			err := s.Commit(t.Context(), 2, map[string][]byte{"position": []byte("2")})
			condition, retryable, _ := meaning(t, err)
			if condition != c.condition || retryable == c.final || !strings.Contains(err.Error(), c.says) {
				t.Errorf("condition %q, retryable %v: %v", condition, retryable, err)
			}
			<-s.Done()
			if !errors.Is(err, s.Err()) {
				t.Errorf("commit: %v; the session has ended with %v", err, s.Err())
			}
			if n, err := s.Send(t.Context(), []outbox.Message{event("topic", 1, 2)}); n != 0 || !errors.Is(err, s.Err()) {
				t.Errorf("the session took %d messages: %v", n, err)
			}
			if err := s.Close(t.Context()); err != nil {
				t.Errorf("close: %v", err)
			}
			handle.Remove()
			wantCommitted(t, cluster, kafka, "1", "0")
		})
	}
}

// The event that a broker refuses is named, also if the refusal comes only when
// the commit waits for it.
func TestACommitNamesTheEventThatWasRefused(t *testing.T) {
	for range 20 { // drain and commit both hear of it
		cluster := fakeCluster(t)
		kafka, s := inTransaction(t, cluster, atomicConfig(cluster))
		cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "topic", Partitions: []int32{1}, Err: kerr.InvalidRecord})
		mustSend(t, s, event("topic", 1, 2))
		err := s.Commit(t.Context(), 3, map[string][]byte{"position": []byte("3")})
		var rejected *sink.Rejected
		if !errors.As(err, &rejected) || rejected.ID != "id-2" {
			t.Fatalf("commit: %v", err)
		}
		wantCommitted(t, cluster, kafka, "1", "0")
	}
}

// After an error in its transaction sarama takes nothing more. What it says then
// is not the reason.
func TestTheReasonIsToldAndNotWhatFollows(t *testing.T) {
	cluster := fakeCluster(t)
	_, s := inTransaction(t, cluster, atomicConfig(cluster))
	cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.AddPartitionsToTxn}, Err: kerr.ProducerFenced, Count: -1})
	for i := 2; i < 10_000; i++ {
		if _, err := s.Send(t.Context(), []outbox.Message{event("topic", 1, i)}); err != nil {
			break
		}
	}
	if condition, retryable, err := outcome(t, s); condition != condTakenOver || !retryable {
		t.Errorf("condition %q, retryable %v: %v", condition, retryable, err)
	}
}

func TestAFencedTransactionSaysSo(t *testing.T) {
	cluster := fakeCluster(t)
	kafka, s := inTransaction(t, cluster, atomicConfig(cluster))
	if err := kafka.WriteMarks(t.Context(), map[string][]byte{"position": []byte("another's")}); err != nil {
		t.Fatal(err)
	}
	mustSend(t, s, event("topic", 0, 2))
	if condition, retryable, err := outcome(t, s); condition != condTakenOver || !retryable {
		t.Errorf("condition %q, retryable %v: %v", condition, retryable, err)
	}
	wantCommitted(t, cluster, kafka, "another's", "0")
}

// The coordinator fences the producer of a transaction that is open for too long.
// Nobody else works then.
func TestATransactionThatTimesOutSaysSo(t *testing.T) {
	cluster := fakeCluster(t)
	_, s := inTransaction(t, cluster, atomicConfig(cluster))
	s.ledger.(*transactional).begun.Store(0)
	cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.EndTxn}, Err: kerr.ProducerFenced})
	err := s.Commit(t.Context(), 2, map[string][]byte{"position": []byte("2")})
	condition, retryable, _ := meaning(t, err)
	if condition != "" || !retryable || !strings.Contains(err.Error(), "longer than its timeout") {
		t.Errorf("condition %q, retryable %v: %v", condition, retryable, err)
	}
}

func TestABrokerThatGoesDuringACommit(t *testing.T) {
	t.Parallel()
	cluster := fakeCluster(t)
	_, s := inTransaction(t, cluster, atomicConfig(cluster))
	cluster.ControlKey(int16(kmsg.EndTxn), func(kmsg.Request) (kmsg.Response, error, bool) {
		go cluster.Close()
		return nil, errors.New("the broker goes"), true
	})
	err := s.Commit(t.Context(), 2, map[string][]byte{"position": []byte("2")})
	if condition, retryable, _ := meaning(t, err); condition != condUnreachable || !retryable {
		t.Errorf("condition %q, retryable %v: %v", condition, retryable, err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Errorf("close: %v", err)
	}
}

func TestTheEndOfAContextInterruptsATransaction(t *testing.T) {
	cluster := fakeCluster(t)
	kafka, s := inTransaction(t, cluster, atomicConfig(cluster))
	ctx, end := context.WithCancel(t.Context())
	cluster.ControlKey(int16(kmsg.EndTxn), func(kmsg.Request) (kmsg.Response, error, bool) {
		end()
		return nil, errors.New("too late"), true
	})
	if err := s.Commit(ctx, 2, map[string][]byte{"position": []byte("2")}); !errors.Is(err, context.Canceled) {
		t.Errorf("commit: %v", err)
	}
	<-s.Done()
	if err := s.Close(t.Context()); err != nil {
		t.Errorf("close: %v", err)
	}
	wantCommitted(t, cluster, kafka, "1", "0")
}

// An open transaction would hide from consumers what others write after it.
func TestCloseAbortsTheTransaction(t *testing.T) {
	cluster := fakeCluster(t)
	_, s := inTransaction(t, cluster, atomicConfig(cluster))
	stable := func() int64 { return cluster.PartitionInfo("topic", 0).LastStableOffset }
	before := stable()
	closed(t, s)
	publish(t, cluster, changed(event("topic", 0, 7), func(*outbox.Message) {}))
	if end := cluster.PartitionInfo("topic", 0).HighWatermark; stable() != end || before == end {
		t.Errorf("the last stable offset was %d and is %d, the end is %d", before, stable(), end)
	}
	if diff := cmp.Diff([]string{"0", "7"}, values(t, cluster, "topic")); diff != "" {
		t.Errorf("values (-want +got):\n%s", diff)
	}
}

func TestAnAbortThatFailsIsReported(t *testing.T) {
	cluster := fakeCluster(t)
	_, s := inTransaction(t, cluster, atomicConfig(cluster))
	cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.EndTxn}, Err: kerr.ProducerFenced})
	err := s.Close(t.Context())
	if condition, _, _ := meaning(t, err); condition != condTakenOver || !errors.Is(err, s.Err()) {
		t.Errorf("close: %v; the session has ended with %v", err, s.Err())
	}
}

// A floor is in the marks of the transaction that writes to its topic first.
func TestFloorsGoWithTheTransaction(t *testing.T) {
	cluster := fakeCluster(t)
	kafka, s := inTransaction(t, cluster, atomicConfig(cluster))
	first := ownMark(t, kafka)
	if !strings.Contains(first, `"topic":{`) {
		t.Errorf("after the first commit the floors are %q", first)
	}
	makeTopic(t, cluster, "another", 1)
	mustSend(t, s, event("another", 0, 2))
	if got := ownMark(t, kafka); got != first {
		t.Errorf("before the commit the floors are %q", got)
	}
	commit(t, s, 3, "position", "3")
	second := ownMark(t, kafka)
	if !strings.Contains(second, `"another":{`) {
		t.Errorf("after the second commit the floors are %q", second)
	}

	// Those that have only risen wait for their time.
	mustSend(t, s, event("another", 0, 3))
	s.ledger.(*transactional).floorsAt = time.Now().Add(time.Hour)
	commit(t, s, 4, "position", "4")
	if got := ownMark(t, kafka); got != second {
		t.Errorf("too early the floors are %q", got)
	}
	s.ledger.(*transactional).floorsAt = time.Time{}
	commit(t, s, 4, "position", "5")
	if got := ownMark(t, kafka); got == second {
		t.Errorf("the floors are still %q", got)
	}
}

// A pipeline may change its kind of sink. What a session has published and not
// committed is published once all the same.
func TestASessionOfOneKindFollowsAnother(t *testing.T) {
	for name, atomic := range map[string]bool{"continuous, then atomic": false, "atomic, then continuous": true} {
		t.Run(name, func(t *testing.T) {
			cluster := fakeCluster(t)
			makeTopic(t, cluster, "topic", 1)
			cfg := testConfig(cluster)
			sinks := map[bool]*Sink{}
			for _, kind := range []bool{false, true} {
				cfg.Atomic = kind
				sinks[kind] = prepared(t, cfg)
			}
			msgs := keyed("a", "b", "a", "b", "a", "b")

			first := resume(t, sinks[atomic])
			first.through(t, msgs[:2]...)
			commit(t, first.session, 2, "position", "2")
			first.through(t, msgs[2:4]...) // and dies

			second := resume(t, sinks[!atomic])
			published := 0 // by the first session, beyond its marks
			if !atomic {
				published = 2
			}
			if got := second.through(t, msgs[2:]...); got != published {
				t.Errorf("%d are said to be duplicates, %d are", got, published)
			}
			commit(t, second.session, 6, "position", "6")
			closed(t, second.session)

			third := resume(t, sinks[atomic]) // which is told what is committed already
			if got := third.through(t, msgs[5:]...); got > 1 {
				t.Errorf("%d are said to be duplicates", got)
			}
			if got := values(t, cluster, "topic"); len(got) < 6 || !slices.Equal(got[:6], []string{"0", "1", "2", "3", "4", "5"}) {
				t.Errorf("published is %s", got)
			}
		})
	}
}

func TestAMarkThatIsTooLargeForTheProducer(t *testing.T) {
	cluster := fakeCluster(t)
	cfg := atomicConfig(cluster)
	cfg.MaxMessageBytes = minMaxMessageBytes
	_, s := inTransaction(t, cluster, cfg)
	err := s.Commit(t.Context(), 2, map[string][]byte{"position": make([]byte, minMaxMessageBytes)})
	if condition, retryable, _ := meaning(t, err); condition != "" || retryable || !strings.Contains(err.Error(), checkpointTopic) {
		t.Errorf("condition %q, retryable %v: %v", condition, retryable, err)
	}
}

func TestATimeoutThatTheBrokersDoNotGrant(t *testing.T) {
	cluster := fakeCluster(t)
	kafka := prepared(t, atomicConfig(cluster))
	cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.InitProducerID}, Err: kerr.InvalidTransactionTimeout})
	_, _, err := kafka.Open(t.Context(), func([]uint64, sink.Outcome) {})
	if _, retryable, _ := meaning(t, err); retryable || !strings.Contains(remedyOf(err), "transaction.max.timeout.ms") {
		t.Errorf("retryable %v, remedy %q: %v", retryable, remedyOf(err), err)
	}
}
