package kafka

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/walpost/walpost/outbox"
	"github.com/walpost/walpost/sink"
)

// A message that sarama gives up leaves a hole: the session must end, and
// nothing sent after it may count, whatever became of it.
func TestFirstErrorEndsTheSession(t *testing.T) {
	for _, c := range []struct {
		err       *kerr.Error
		condition string
		retryable bool
		poison    bool
	}{
		{kerr.TopicAuthorizationFailed, condAuthFailed, true, false},
		{kerr.OutOfOrderSequenceNumber, "", true, false},
		{kerr.InvalidRecord, "poison_event", false, true},
		{kerr.MessageTooLarge, "poison_event", false, true},
		{kerr.PolicyViolation, "poison_event", false, true},
	} {
		t.Run(c.err.Message, func(t *testing.T) {
			cluster := fakeCluster(t)
			makeTopic(t, cluster, "topic", 2)
			s, settled := opened(t, prepared(t, testConfig(cluster)))
			mustSend(t, s, event("topic", 0, 0), event("topic", 1, 1))
			collect(t, s, settled, 2)

			cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "topic", Partitions: []int32{0}, Err: c.err})
			mustSend(t, s, event("topic", 0, 2))
			condition, retryable, err := outcome(t, s)
			if condition != c.condition || retryable != c.retryable {
				t.Errorf("condition %q, retryable %v: %v", condition, retryable, err)
			}
			var rejected *sink.Rejected
			if errors.As(err, &rejected) != c.poison || c.poison && (rejected.ID != "id-2" || rejected.Pos.Commit != 2) {
				t.Errorf("the condemned event is %v: %v", rejected, err)
			}

			if n, err := s.Send(t.Context(), []outbox.Message{event("topic", 1, 3)}); n != 0 || !errors.Is(err, s.Err()) {
				t.Errorf("a failed session took %d messages: %v", n, err)
			}
			if err := s.Commit(t.Context(), 2, map[string][]byte{"position": []byte("2")}); !errors.Is(err, s.Err()) {
				t.Errorf("a failed session committed: %v", err)
			}
			if err := s.Close(t.Context()); err != nil {
				t.Errorf("close after a failure: %v", err)
			}
			if len(settled) != 0 {
				t.Errorf("%d more messages were settled", len(settled))
			}
		})
	}
}

func TestBlipsAreRiddenOut(t *testing.T) {
	for name, fault := range map[string]kfake.Fault{
		"the leader has moved": {Err: kerr.NotLeaderForPartition, Count: 3},
		"replicas are missing": {Err: kerr.NotEnoughReplicas, Count: 3},
		"the answer got lost":  {Err: kerr.RequestTimedOut, Count: 2}, // the batch is stored all the same
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster := fakeCluster(t)
			v := &view{brokers: cluster.ListenAddrs()}
			makeTopic(t, cluster, "topic", 1)
			s, settled := opened(t, prepared(t, testConfig(cluster)))
			mustSend(t, s, event("topic", 0, 0))
			fault.Keys, fault.Topic = []kmsg.Key{kmsg.Produce}, "topic"
			handle := cluster.Fault(fault)
			for i := range 50 {
				mustSend(t, s, event("topic", 0, 1+i))
			}
			collect(t, s, settled, 51)
			if handle.Hits() == 0 {
				t.Error("the fault has met nothing")
			}
			for i, r := range v.published(t, "topic") {
				if want := event("topic", 0, i).Value; string(r.Value) != string(want) {
					t.Fatalf("record %d is %q", i, r.Value)
				}
			}
		})
	}
}

func TestALeaderThatMovesIsFollowed(t *testing.T) {
	cluster := fakeCluster(t, kfake.NumBrokers(3))
	v := &view{brokers: cluster.ListenAddrs()}
	makeTopic(t, cluster, "topic", 1)
	s, settled := opened(t, prepared(t, testConfig(cluster)))
	for i := range 5 {
		mustSend(t, s, event("topic", 0, 2*i), event("topic", 0, 2*i+1))
		if err := cluster.MoveTopicPartition("topic", 0, int32(i%3)); err != nil {
			t.Fatal(err)
		}
	}
	collect(t, s, settled, 10)
	records := v.published(t, "topic")
	if len(records) != 10 {
		t.Fatalf("%d records for 10 messages", len(records))
	}
	for i, r := range records {
		if want := event("topic", 0, i).Value; string(r.Value) != string(want) {
			t.Fatalf("record %d is %q", i, r.Value)
		}
	}
}

func TestAnOutageUnderLoadEndsTheSession(t *testing.T) {
	t.Parallel()
	cluster := fakeCluster(t)
	makeTopic(t, cluster, "topic", 3)
	s, settled := opened(t, prepared(t, testConfig(cluster)))
	mustSend(t, s, event("topic", 0, 0))
	collect(t, s, settled, 1)
	cluster.Close()
	for i := 1; ; i++ {
		if _, err := s.Send(t.Context(), []outbox.Message{event("topic", int32(i%3), i)}); err != nil {
			break
		}
		if i == 5000 {
			break // in flight is bounded by the caller, see the contract
		}
	}
	condition, retryable, err := outcome(t, s)
	if condition != condUnreachable || !retryable {
		t.Errorf("condition %q, retryable %v: %v", condition, retryable, err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if len(settled) != 0 {
		t.Errorf("%d messages were settled by nobody", len(settled))
	}
}

func TestAnOutageWhileIdleEndsTheSession(t *testing.T) {
	t.Parallel()
	cluster := fakeCluster(t)
	s, _ := opened(t, prepared(t, testConfig(cluster)))
	cluster.Close()
	if condition, retryable, err := outcome(t, s); condition != condUnreachable || !retryable {
		t.Errorf("condition %q, retryable %v: %v", condition, retryable, err)
	}
}

// swallow makes the cluster never answer requests of a kind.
func swallow(cluster *kfake.Cluster, key kmsg.Key) {
	cluster.ControlKey(int16(key), func(kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		return nil, nil, true
	})
}

func TestASilentClusterEndsTheSession(t *testing.T) {
	t.Run("under load", func(t *testing.T) {
		t.Parallel()
		cluster := fakeCluster(t)
		makeTopic(t, cluster, "topic", 1)
		cfg := testConfig(cluster)
		cfg.StallTimeout = 100 * time.Millisecond
		s, settled := opened(t, prepared(t, cfg))
		mustSend(t, s, event("topic", 0, 0))
		collect(t, s, settled, 1)
		swallow(cluster, kmsg.Produce)
		mustSend(t, s, event("topic", 0, 1))
		if condition, retryable, err := outcome(t, s); condition != condUnreachable || !retryable {
			t.Errorf("condition %q, retryable %v: %v", condition, retryable, err)
		}
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
	t.Run("while idle", func(t *testing.T) {
		t.Parallel()
		cluster := fakeCluster(t)
		cfg := testConfig(cluster)
		cfg.ProbeTimeout = 100 * time.Millisecond
		s, _ := opened(t, prepared(t, cfg))
		swallow(cluster, kmsg.Metadata)
		if condition, retryable, err := outcome(t, s); condition != condUnreachable || !retryable {
			t.Errorf("condition %q, retryable %v: %v", condition, retryable, err)
		}
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// A stalled session that is told to close with little time abandons what it
// has, says so, and leaves no connection.
func TestCloseAbandonsWhatDoesNotSettle(t *testing.T) {
	cluster := fakeCluster(t)
	makeTopic(t, cluster, "topic", 1)
	s, settled := opened(t, prepared(t, testConfig(cluster)))
	mustSend(t, s, event("topic", 0, 0))
	collect(t, s, settled, 1)
	swallowed := make(chan struct{}, 10)
	cluster.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		swallowed <- struct{}{}
		return nil, nil, true
	})
	mustSend(t, s, event("topic", 0, 1), event("topic", 0, 2))
	<-swallowed
	ctx, end := context.WithCancel(t.Context())
	closed := make(chan error, 1)
	go func() { closed <- s.Close(ctx) }()
	<-s.closing
	end()
	err := <-closed
	if !errors.Is(err, context.Canceled) {
		t.Errorf("close: %v", err)
	}
	if err := s.Err(); err == nil {
		t.Error("the session has abandoned messages and has no error")
	}
	if _, err := s.dialer.Dial("tcp", cluster.ListenAddrs()[0]); err == nil {
		t.Error("the closed session can still connect")
	}
	if len(settled) != 0 {
		t.Errorf("%d messages were settled", len(settled))
	}
}

func TestASessionIsRenewedBeforeSequenceNumbersRunOut(t *testing.T) {
	cluster := fakeCluster(t)
	v := &view{brokers: cluster.ListenAddrs()}
	makeTopic(t, cluster, "topic", 2)
	cfg := testConfig(cluster)
	cfg.renewAfter = 10
	sink := prepared(t, cfg)
	s, settled := opened(t, sink)

	var msgs []outbox.Message
	for i := range 5 {
		msgs = append(msgs, event("topic", 1, i))
	}
	for i := range 12 {
		msgs = append(msgs, event("topic", 0, 5+i))
	}
	n, err := s.Send(t.Context(), msgs)
	if n != 15 {
		t.Errorf("%d messages were taken, not 5 to one partition and 10 to the other", n)
	}
	if condition, retryable, _ := meaning(t, err); condition != "" || !retryable {
		t.Errorf("condition %q, retryable %v: %v", condition, retryable, err)
	}
	<-s.Done()
	if len(settled) != 15 {
		t.Errorf("%d messages are settled, 15 were taken", len(settled))
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}

	next, settled := opened(t, sink)
	mustSend(t, next, msgs[15:]...)
	collect(t, next, settled, 2)
	if got := len(v.published(t, "topic")); got != 17 {
		t.Errorf("%d records for 17 messages", got)
	}
}

func TestMissingTopics(t *testing.T) {
	t.Run("hold up what is behind, not what was before", func(t *testing.T) {
		cluster := fakeCluster(t)
		makeTopic(t, cluster, "topic", 1)
		s, settled := opened(t, prepared(t, testConfig(cluster)))
		msgs := []outbox.Message{event("topic", 0, 0), event("topic", 0, 1), event("missing", -1, 2), event("topic", 0, 3)}
		msgs[1].Pos, msgs[2].Pos.Index = msgs[2].Pos, 1 // of one transaction
		n, err := s.Send(t.Context(), msgs)
		if condition, retryable, _ := meaning(t, err); n != 1 || condition != condTopicMissing || !retryable {
			t.Errorf("%d taken, condition %q, retryable %v: %v", n, condition, retryable, err)
		}
		collect(t, s, settled, 1)
		if err := s.Commit(t.Context(), 1, map[string][]byte{"mark": []byte("of the first")}); err != nil {
			t.Error(err)
		}
		makeTopic(t, cluster, "missing", 1)
		mustSend(t, s, msgs[1:]...)
		collect(t, s, settled, 3)
	})
	t.Run("are created where that is wanted", func(t *testing.T) {
		cluster := fakeCluster(t)
		cfg := testConfig(cluster)
		cfg.Topics = TopicDefaults{Create: true, Partitions: 3, ReplicationFactor: 1, Config: map[string]string{"retention.ms": "1000"}}
		s, settled := opened(t, prepared(t, cfg))
		mustSend(t, s, event("missing", 2, 0))
		collect(t, s, settled, 1)
		if got := len(cluster.PartitionInfos("missing")); got != 3 {
			t.Errorf("the topic has %d partitions", got)
		}
		if got := cluster.TopicInfo("missing").Configs["retention.ms"]; got == nil || *got != "1000" {
			t.Error("its configuration is not the one wanted")
		}
	})
	t.Run("that may not be seen are said to be so", func(t *testing.T) {
		cluster := fakeCluster(t)
		makeTopic(t, cluster, "topic", 1)
		s, _ := opened(t, prepared(t, testConfig(cluster)))
		cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Metadata}, Topic: "topic", Err: kerr.TopicAuthorizationFailed, Count: -1})
		_, err := s.Send(t.Context(), []outbox.Message{event("topic", 0, 0)})
		if condition, retryable, _ := meaning(t, err); condition != condAuthFailed || !retryable {
			t.Errorf("condition %q, retryable %v: %v", condition, retryable, err)
		}
	})
}

// A topic with a lower limit than the configured one refuses whole batches.
func TestATopicWithALowerLimit(t *testing.T) {
	cluster := fakeCluster(t)
	limit := "2000"
	if err := cluster.CreateTopic("narrow", 1, map[string]string{"max.message.bytes": limit}); err != nil {
		t.Fatal(err)
	}
	s, _ := opened(t, prepared(t, testConfig(cluster)))
	m := event("narrow", 0, 0)
	m.Value = slices.Repeat([]byte("x"), 3000)
	mustSend(t, s, m)
	condition, retryable, err := outcome(t, s)
	if condition != "poison_event" || retryable {
		t.Errorf("condition %q, retryable %v: %v", condition, retryable, err)
	}
}

func TestTheEndOfAContextInterruptsSend(t *testing.T) {
	cluster := fakeCluster(t)
	makeTopic(t, cluster, "topic", 1)
	s, _ := opened(t, prepared(t, testConfig(cluster)))
	ctx, end := context.WithCancel(t.Context())
	cluster.ControlKey(int16(kmsg.ListOffsets), func(kmsg.Request) (kmsg.Response, error, bool) {
		end()
		return nil, nil, true
	})
	n, err := s.Send(ctx, []outbox.Message{event("topic", 0, 0)})
	if n != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("send took %d: %v", n, err)
	}
	select {
	case <-s.Done():
	default:
		t.Error("Send has returned and the session has not ended yet")
	}
}

func TestASessionIsOverOnceItsCallWasInterrupted(t *testing.T) {
	ended, end := context.WithCancel(t.Context())
	end()
	for range 1000 { // as a race, it would not show every time
		s := &session{dialer: newDialer(time.Second), done: make(chan struct{})}
		s.failAtEndOf(ended, "test")()
		if !errors.Is(s.Err(), context.Canceled) {
			t.Fatalf("the session's error is %v", s.Err())
		}
	}
}

// Blocked for room, Send can be interrupted without harm.
func TestTheEndOfAContextWhileSendWaitsForRoomHarmsNothing(t *testing.T) {
	cluster := fakeCluster(t)
	makeTopic(t, cluster, "topic", 1)
	s, settled := opened(t, prepared(t, testConfig(cluster)))
	mustSend(t, s, event("topic", 0, 0))
	collect(t, s, settled, 1)

	// While the cluster holds back one answer, sarama's queues fill up.
	ctx, end := context.WithCancel(t.Context())
	release := make(chan struct{})
	cluster.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		end()
		<-release
		return nil, nil, false
	})
	msgs := make([]outbox.Message, 50_000)
	for i := range msgs {
		msgs[i] = event("topic", 0, 1+i)
	}
	n, err := s.Send(ctx, msgs)
	close(release)
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("send took %d of %d: %v", n, len(msgs), err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(settled) != n {
		t.Errorf("%d messages were taken, %d are settled", n, len(settled))
	}
}
