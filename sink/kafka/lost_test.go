package kafka

import (
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/walpost/walpost/outbox"
)

func deleteTopic(t *testing.T, cluster *kfake.Cluster, name string) {
	t.Helper()
	req := kmsg.NewPtrDeleteTopicsRequest()
	req.TopicNames = []string{name}
	topic := kmsg.NewDeleteTopicsRequestTopic()
	topic.Topic = kmsg.StringPtr(name)
	req.Topics = append(req.Topics, topic)
	v := &view{brokers: cluster.ListenAddrs()}
	resp, err := req.RequestWith(t.Context(), v.client(t))
	if err == nil {
		err = kerr.ErrorForCode(resp.Topics[0].ErrorCode)
	}
	if err != nil {
		t.Fatalf("delete topic %s: %v", name, err)
	}
}

// A topic that was deleted and created again has lost what was acknowledged. Only
// a person can decide that this is all right, by `walpost init`.
func TestARecreatedTopicStopsUntilItIsAccepted(t *testing.T) {
	cluster := fakeCluster(t)
	makeTopic(t, cluster, "topic", 1)
	makeTopic(t, cluster, "other", 1)
	kafka := prepared(t, testConfig(cluster))
	s, settled := opened(t, kafka)
	mustSend(t, s, event("topic", 0, 0), event("other", 0, 1))
	collect(t, s, settled, 2)
	commit(t, s, 2, "position", "2")
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	deleteTopic(t, cluster, "topic")
	makeTopic(t, cluster, "topic", 1)

	s, settled = opened(t, kafka)
	mustSend(t, s, event("other", 0, 0)) // which is still the same
	collect(t, s, settled, 1)
	n, err := s.Send(t.Context(), []outbox.Message{event("topic", 0, 1)})
	condition, retryable, err := meaning(t, err)
	if n != 0 || condition != condLostRecords || retryable || !strings.Contains(err.Error(), "topic topic") {
		t.Errorf("%d taken, condition %q, retryable %v: %v", n, condition, retryable, err)
	}
	if condition, _, _ := outcome(t, s); condition != condLostRecords {
		t.Errorf("the session has ended with condition %q", condition)
	}
	if got := cluster.PartitionInfo("topic", 0).HighWatermark; got != 0 {
		t.Errorf("%d messages were written to it", got)
	}

	// Another session finds the same.
	s, _ = opened(t, kafka)
	if _, err := s.Send(t.Context(), []outbox.Message{event("topic", 0, 0)}); err == nil {
		t.Error("a further session accepts the topic")
	}

	if err := kafka.WriteMarks(t.Context(), map[string][]byte{"position": []byte("1")}); err != nil {
		t.Fatal(err)
	}
	if got := ownMark(t, kafka); got != "" {
		t.Errorf("the floors are still %s", got)
	}
	s, settled = opened(t, kafka)
	mustSend(t, s, event("topic", 0, 0))
	collect(t, s, settled, 1)
}

// The limit for events says nothing about marks.
func TestMarksMayBeLargerThanEvents(t *testing.T) {
	cluster := fakeCluster(t)
	makeTopic(t, cluster, "topic", 1000) // each at least 2 bytes of the floors mark
	cfg := testConfig(cluster)
	cfg.MaxMessageBytes = minMaxMessageBytes
	kafka := prepared(t, cfg)
	s, settled := opened(t, kafka)
	mustSend(t, s, event("topic", 999, 0))
	collect(t, s, settled, 1)
	if got := len(ownMark(t, kafka)); got < 2*minMaxMessageBytes-100 {
		t.Errorf("the floors mark has only %d bytes", got)
	}
}

func TestAFloorsMarkThatDoesNotFit(t *testing.T) {
	t.Run("into a message", func(t *testing.T) {
		cluster := fakeCluster(t)
		makeTopic(t, cluster, "topic", 1)
		s, _ := opened(t, prepared(t, testConfig(cluster)))
		many := &topicFloors{partitions: make([]*partitionFloor, marksMaxMessageBytes/2)}
		for i := range many.partitions {
			many.partitions[i] = &partitionFloor{}
		}
		s.floors.topics["large"] = many
		sendAndExpectMarksTooLarge(t, s)
	})
	t.Run("into the checkpoint topic", func(t *testing.T) {
		cluster := fakeCluster(t)
		err := cluster.CreateTopic(checkpointTopic, 1, map[string]string{"cleanup.policy": "compact", "max.message.bytes": "1000"})
		if err != nil {
			t.Fatal(err)
		}
		makeTopic(t, cluster, "topic", 500)
		s, _ := opened(t, prepared(t, testConfig(cluster)))
		sendAndExpectMarksTooLarge(t, s)
	})
}

func sendAndExpectMarksTooLarge(t *testing.T, s *session) {
	t.Helper()
	_, err := s.Send(t.Context(), []outbox.Message{event("topic", 0, 0)})
	condition, retryable, err := meaning(t, err)
	if condition != "" || retryable || !strings.Contains(err.Error(), checkpointTopic) {
		t.Errorf("condition %q, retryable %v: %v", condition, retryable, err)
	}
	<-s.Done()
	if remedy := remedyOf(s.Err()); !strings.Contains(remedy, "topics and partitions") {
		t.Errorf("the remedy is %q", remedy)
	}
}
