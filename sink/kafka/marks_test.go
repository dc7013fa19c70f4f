package kafka

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/walpost/walpost/sink"
)

const checkpointTopic = "walpost.checkpoint.test"

// ownMark reads the sink's own mark, which Marks does not show.
func ownMark(t *testing.T, s *Sink) string {
	t.Helper()
	d := newDialer(time.Second)
	defer d.cut()
	store, err := readMarksOnly(s.cfg, d)
	if err != nil {
		t.Fatal(err)
	}
	defer store.close()
	marks, err := store.read()
	if err != nil {
		t.Fatal(err)
	}
	return string(marks[floorsMark])
}

func commit(t *testing.T, s *session, through uint64, name, value string) {
	t.Helper()
	if err := s.Commit(t.Context(), through, map[string][]byte{name: []byte(value)}); err != nil {
		t.Fatal(err)
	}
}

func TestFloorsAreInTheRecordBeforeTheFirstWrite(t *testing.T) {
	cluster := fakeCluster(t)
	makeTopic(t, cluster, "topic", 2)
	foreign, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer foreign.Close()
	for range 3 {
		if err := foreign.ProduceSync(t.Context(), &kgo.Record{Topic: "topic", Partition: 1, Value: []byte("foreign")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	kafka := prepared(t, testConfig(cluster))
	s, _ := opened(t, kafka)

	// The first write to the topic fails for good: the floors are known all the same.
	cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "topic", Err: kerr.InvalidRecord})
	mustSend(t, s, event("topic", 1, 0))
	<-s.Done()
	_, topic, err := kafka.describe(newDialer(time.Second), "topic")
	if err != nil {
		t.Fatal(err)
	}
	floorsOf := func(a, b int) string {
		return fmt.Sprintf(`{"v":1,"topics":{"topic":{"id":"%s","next":[%d,%d]}}}`, topic.Uuid, a, b)
	}
	if got, want := ownMark(t, kafka), floorsOf(0, 3); got != want {
		t.Errorf("the record has %s, want %s", got, want)
	}

	// A commit raises them to what its marks speak for, and no further.
	s, settled := opened(t, kafka)
	for i := range 4 {
		mustSend(t, s, event("topic", 1, i))
		collect(t, s, settled, 1)
	}
	mustSend(t, s, event("topic", 0, 4))
	collect(t, s, settled, 1)
	for _, c := range []struct {
		through uint64
		want    string
	}{{2, floorsOf(0, 5)}, {5, floorsOf(1, 7)}} {
		commit(t, s, c.through, "position", "moving")
		if got := ownMark(t, kafka); got != c.want {
			t.Errorf("the record has %s, want %s", got, c.want)
		}
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}

	// A successor that sends nothing keeps them.
	s, _ = opened(t, kafka)
	commit(t, s, 0, "position", "6")
	if got, want := ownMark(t, kafka), floorsOf(1, 7); got != want {
		t.Errorf("the record has %s, want %s", got, want)
	}
}

func TestTheSinksOwnMarkIsNotTheCallers(t *testing.T) {
	cluster := fakeCluster(t)
	makeTopic(t, cluster, "topic", 1)
	kafka := prepared(t, testConfig(cluster))
	s, settled := opened(t, kafka)
	mustSend(t, s, event("topic", 0, 0))
	collect(t, s, settled, 1)
	commit(t, s, 1, "position", "1")

	want := map[string][]byte{"position": []byte("1")}
	marks, err := kafka.Marks(t.Context())
	if diff := cmp.Diff(want, marks); diff != "" || err != nil {
		t.Errorf("Marks (-want +got): %v\n%s", err, diff)
	}
	other, marks, err := kafka.Open(t.Context(), func([]uint64, sink.Outcome) {})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close(t.Context()) }()
	if diff := cmp.Diff(want, marks); diff != "" {
		t.Errorf("Open (-want +got):\n%s", diff)
	}
	if err := other.Commit(t.Context(), 0, map[string][]byte{floorsMark: nil}); err == nil || !strings.Contains(err.Error(), "own") {
		t.Errorf("a caller committed the sink's own mark: %v", err)
	}
}

func TestAFencedSessionSaysSo(t *testing.T) {
	cluster := fakeCluster(t)
	kafka := prepared(t, testConfig(cluster))
	old, _ := opened(t, kafka)
	commit(t, old, 0, "position", "1")
	if err := kafka.WriteMarks(t.Context(), map[string][]byte{"position": []byte("2")}); err != nil {
		t.Fatal(err)
	}
	err := old.Commit(t.Context(), 0, map[string][]byte{"position": []byte("zombie")})
	if condition, retryable, _ := meaning(t, err); condition != condTakenOver || !retryable || !strings.Contains(err.Error(), "another relay") {
		t.Errorf("condition %q, retryable %v: %v", condition, retryable, err)
	}
	<-old.Done()
	marks, err := kafka.Marks(t.Context())
	if err != nil || string(marks["position"]) != "2" {
		t.Errorf("position %q, %v", marks["position"], err)
	}
}

func TestACommitOfNothingWritesNothing(t *testing.T) {
	cluster := fakeCluster(t)
	s, _ := opened(t, prepared(t, testConfig(cluster)))
	before := cluster.PartitionInfo(checkpointTopic, 0).HighWatermark
	if err := s.Commit(t.Context(), 0, nil); err != nil {
		t.Fatal(err)
	}
	if after := cluster.PartitionInfo(checkpointTopic, 0).HighWatermark; after != before {
		t.Error("a commit of nothing has written something")
	}
}

// What an aborted transaction left is not read, nor are the gaps that control
// records and compaction leave an obstacle.
func TestOnlyCommittedMarksAreRead(t *testing.T) {
	cluster := fakeCluster(t)
	kafka := prepared(t, testConfig(cluster))
	foreign, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.TransactionalID("another"), kgo.DefaultProduceTopic(checkpointTopic))
	if err != nil {
		t.Fatal(err)
	}
	defer foreign.Close()
	transaction := func(value string, end kgo.TransactionEndTry) {
		t.Helper()
		if err := foreign.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		if err := foreign.ProduceSync(t.Context(), &kgo.Record{Key: []byte("position"), Value: []byte(value)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if err := foreign.EndTransaction(t.Context(), end); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(want string) {
		t.Helper()
		marks, err := kafka.Marks(t.Context())
		if err != nil || string(marks["position"]) != want {
			t.Fatalf("position %q, want %q (%v)", marks["position"], want, err)
		}
	}
	for i := range 20 {
		transaction(fmt.Sprint(i), kgo.TryCommit)
	}
	expect("19")
	transaction("aborted", kgo.TryAbort)
	expect("19")
	cluster.Compact()
	expect("19")
	transaction("20", kgo.TryCommit)
	transaction("aborted", kgo.TryAbort)
	expect("20")
	cluster.Compact()
	expect("20")
}

// A transaction left open by a dead relay hides nothing from its successor: the
// fence ends it. Somebody who only reads sees what was committed before, and does
// not wait for the coordinator to abort it.
func TestAnOpenTransactionIsEndedByTheSuccessor(t *testing.T) {
	cluster := fakeCluster(t)
	kafka := prepared(t, testConfig(cluster))
	if err := kafka.WriteMarks(t.Context(), map[string][]byte{"position": []byte("1")}); err != nil {
		t.Fatal(err)
	}
	dead, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.TransactionalID("walpost.test"), kgo.DefaultProduceTopic(checkpointTopic))
	if err != nil {
		t.Fatal(err)
	}
	defer dead.Close()
	if err := dead.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := dead.ProduceSync(t.Context(), &kgo.Record{Key: []byte("position"), Value: []byte("in doubt")}).FirstErr(); err != nil {
		t.Fatal(err)
	}

	impatient := testConfig(cluster)
	impatient.StallTimeout = 10 * time.Millisecond
	if marks, err := newSink(t, impatient).Marks(t.Context()); err != nil || string(marks["position"]) != "1" {
		t.Errorf("with a transaction open the marks are %q, %v", marks, err)
	}
	s, marks, err := kafka.Open(t.Context(), func([]uint64, sink.Outcome) {})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close(t.Context()) }()
	if string(marks["position"]) != "1" {
		t.Errorf("position %q", marks["position"])
	}
}

func TestTheEndOfAContextInterruptsCommit(t *testing.T) {
	cluster := fakeCluster(t)
	s, _ := opened(t, prepared(t, testConfig(cluster)))
	ctx, end := context.WithCancel(t.Context())
	cluster.ControlKey(int16(kmsg.EndTxn), func(kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		end()
		return nil, nil, true
	})
	if err := s.Commit(ctx, 0, map[string][]byte{"position": []byte("1")}); !errors.Is(err, context.Canceled) {
		t.Errorf("commit: %v", err)
	}
	<-s.Done()
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestMarksThatCannotBeReadOrWritten(t *testing.T) {
	t.Run("for lack of a topic", func(t *testing.T) {
		t.Parallel()
		kafka := newSink(t, testConfig(fakeCluster(t)))
		if marks, err := kafka.Marks(t.Context()); err != nil || marks == nil || len(marks) != 0 {
			t.Errorf("marks %q, %v", marks, err)
		}
		_, _, err := kafka.Open(t.Context(), nil)
		if condition, retryable, _ := meaning(t, err); condition != condCheckpointMissing || retryable {
			t.Errorf("condition %q, retryable %v: %v", condition, retryable, err)
		}
	})
	t.Run("for lack of rights", func(t *testing.T) {
		cluster := fakeCluster(t)
		kafka := prepared(t, testConfig(cluster))
		cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.InitProducerID}, TxnID: "walpost.test", TopLevel: true, Err: kerr.TransactionalIDAuthorizationFailed})
		_, _, err := kafka.Open(t.Context(), nil)
		if condition, retryable, _ := meaning(t, err); condition != condAuthFailed || !retryable {
			t.Errorf("condition %q, retryable %v: %v", condition, retryable, err)
		}
	})
	t.Run("for lack of a cluster", func(t *testing.T) {
		cluster := fakeCluster(t)
		kafka := prepared(t, testConfig(cluster))
		cluster.Close()
		for name, attempt := range map[string]func() error{
			"Open":                  func() error { _, _, err := kafka.Open(t.Context(), nil); return err },
			"Marks":                 func() error { _, err := kafka.Marks(t.Context()); return err },
			"WriteMarks":            func() error { return kafka.WriteMarks(t.Context(), nil) },
			"ClusterID":             func() error { _, err := kafka.ClusterID(t.Context()); return err },
			"EnsureCheckpointTopic": func() error { return kafka.EnsureCheckpointTopic(t.Context()) },
		} {
			if condition, retryable, err := meaning(t, attempt()); condition != condUnreachable || !retryable {
				t.Errorf("%s: condition %q, retryable %v: %v", name, condition, retryable, err)
			}
		}
	})
	t.Run("because a newer walpost wrote them", func(t *testing.T) {
		cluster := fakeCluster(t)
		kafka := prepared(t, testConfig(cluster))
		newer, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.DefaultProduceTopic(checkpointTopic))
		if err != nil {
			t.Fatal(err)
		}
		defer newer.Close()
		if err := newer.ProduceSync(t.Context(), &kgo.Record{Key: []byte(floorsMark), Value: []byte(`{"v":99}`)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		_, _, err = kafka.Open(t.Context(), nil)
		if condition, retryable, _ := meaning(t, err); condition != condCheckpointTooNew || retryable {
			t.Errorf("condition %q, retryable %v: %v", condition, retryable, err)
		}
	})
}

func TestOpenIsBounded(t *testing.T) {
	t.Run("by its context", func(t *testing.T) {
		cluster := fakeCluster(t)
		kafka := prepared(t, testConfig(cluster))
		ctx, end := context.WithCancel(t.Context())
		cluster.ControlKey(int16(kmsg.InitProducerID), func(kmsg.Request) (kmsg.Response, error, bool) {
			cluster.KeepControl()
			end()
			return nil, nil, true
		})
		if _, _, err := kafka.Open(ctx, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("open: %v", err)
		}
	})
	t.Run("in WriteMarks by its own", func(t *testing.T) {
		cluster := fakeCluster(t)
		cfg := testConfig(cluster)
		cfg.writeTimeout = 200 * time.Millisecond
		kafka := prepared(t, cfg)
		swallow(cluster, kmsg.InitProducerID)
		err := kafka.WriteMarks(t.Context(), nil)
		if condition, retryable, _ := meaning(t, err); condition != condUnreachable || !retryable {
			t.Errorf("condition %q, retryable %v: %v", condition, retryable, err)
		}
	})
}

// Right after a topic was created, or a leader has moved, brokers may not agree on
// who leads.
func TestMarksAreReadWhenTheLeaderIsKnown(t *testing.T) {
	for name, key := range map[string]kmsg.Key{"its ends": kmsg.ListOffsets, "its records": kmsg.Fetch} {
		t.Run(name, func(t *testing.T) {
			cluster := fakeCluster(t)
			kafka := prepared(t, testConfig(cluster))
			s, _ := opened(t, kafka)
			commit(t, s, 0, "position", "7")
			closed(t, s)
			fault := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{key}, Topic: checkpointTopic, Err: kerr.NotLeaderForPartition, Count: 3})
			marks, err := kafka.Marks(t.Context())
			if err != nil || string(marks["position"]) != "7" {
				t.Errorf("marks %q: %v", marks, err)
			}
			if n := fault.Hits(); n != 3 {
				t.Errorf("%d requests were refused", n)
			}
		})
	}
}
