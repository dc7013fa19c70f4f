package kafka

import (
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/walpost/walpost/outbox"
)

func TestTheCheckpointTopicIsMadeOnce(t *testing.T) {
	cluster := fakeCluster(t)
	s := newSink(t, testConfig(cluster))
	for range 2 {
		if err := s.EnsureCheckpointTopic(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := len(cluster.PartitionInfos(checkpointTopic)); got != 1 {
		t.Errorf("it has %d partitions", got)
	}
	for key, want := range map[string]string{"cleanup.policy": "compact", "segment.bytes": "1048576", "min.cleanable.dirty.ratio": "0.01"} {
		if got := cluster.TopicInfo(checkpointTopic).Configs[key]; got == nil || *got != want {
			t.Errorf("%s is not %s", key, want)
		}
	}
}

func TestAnUnfitCheckpointTopicIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		partitions int32
		configs    map[string]string
	}{
		"with two partitions":   {2, map[string]string{"cleanup.policy": "compact"}},
		"that is not compacted": {1, nil},
		"that also deletes":     {1, map[string]string{"cleanup.policy": "compact,delete"}},
	} {
		t.Run(name, func(t *testing.T) {
			cluster := fakeCluster(t)
			if err := cluster.CreateTopic(checkpointTopic, c.partitions, c.configs); err != nil {
				t.Fatal(err)
			}
			err := newSink(t, testConfig(cluster)).EnsureCheckpointTopic(t.Context())
			if _, retryable, _ := meaning(t, err); retryable {
				t.Errorf("trying again is said to help: %v", err)
			}
		})
	}
}

func TestACheckpointTopicThatMayNotBeDescribedIsTrusted(t *testing.T) {
	cluster := fakeCluster(t)
	s := prepared(t, testConfig(cluster))
	denied := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.DescribeConfigs}, Resource: checkpointTopic, Err: kerr.TopicAuthorizationFailed})
	if err := s.EnsureCheckpointTopic(t.Context()); err != nil {
		t.Error(err)
	}
	if denied.Hits() != 1 {
		t.Errorf("%d requests were denied", denied.Hits())
	}
}

func TestACheckpointTopicThatMayNotBeMade(t *testing.T) {
	cluster := fakeCluster(t)
	cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.CreateTopics}, Topic: checkpointTopic, Err: kerr.TopicAuthorizationFailed})
	err := newSink(t, testConfig(cluster)).EnsureCheckpointTopic(t.Context())
	if condition, _, _ := meaning(t, err); condition != condAuthFailed {
		t.Errorf("condition %q: %v", condition, err)
	}
}

func TestClusterIDIsTheBrokers(t *testing.T) {
	cluster := fakeCluster(t, kfake.ClusterID("cluster-of-this-test"))
	// One address that nobody listens at does not matter.
	cfg := testConfig(cluster)
	cfg.Brokers = append([]string{"127.0.0.1:1"}, cfg.Brokers...)
	for range 5 {
		id, err := newSink(t, cfg).ClusterID(t.Context())
		if err != nil || id != "cluster-of-this-test" {
			t.Fatalf("cluster id %q, %v", id, err)
		}
	}
}

func TestACompactedTopicNeedsPermission(t *testing.T) {
	for name, c := range map[string]struct {
		policy            string
		permitted, hidden bool
		refused           bool
	}{
		"compacted":                       {"compact", false, false, true},
		"compacted and retained":          {"compact,delete", false, false, true},
		"permitted":                       {"compact", true, false, false},
		"retained":                        {"delete", false, false, false},
		"settings that may not be looked": {"compact", false, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			cluster := fakeCluster(t)
			if err := cluster.CreateTopic("topic", 1, map[string]string{policyKey: c.policy}); err != nil {
				t.Fatal(err)
			}
			cfg := testConfig(cluster)
			cfg.CompactedTopics = c.permitted
			s, settled := opened(t, prepared(t, cfg))
			if c.hidden {
				cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.DescribeConfigs}, Resource: "topic", Err: kerr.TopicAuthorizationFailed})
			}
			n, err := s.Send(t.Context(), []outbox.Message{event("topic", 0, 0)})
			if !c.refused {
				if n != 1 || err != nil {
					t.Fatalf("%d taken: %v", n, err)
				}
				collect(t, s, settled, 1)
				return
			}
			condition, retryable, err := meaning(t, err)
			if n != 0 || condition != "" || retryable || !strings.Contains(err.Error(), c.policy) || !strings.Contains(remedyOf(err), "kafka.topics.allow_compacted") {
				t.Errorf("%d taken, condition %q, retryable %v: %v", n, condition, retryable, err)
			}
			if got := cluster.PartitionInfo("topic", 0).HighWatermark; got != 0 || ownMark(t, s.sink) != "" {
				t.Errorf("%d messages were written, the mark is %q", got, ownMark(t, s.sink))
			}
		})
	}
}

func TestATopicWhoseSettingsCannotBeRead(t *testing.T) {
	cluster := fakeCluster(t)
	makeTopic(t, cluster, "topic", 1)
	s, _ := opened(t, prepared(t, testConfig(cluster)))
	cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.DescribeConfigs}, Resource: "topic", Err: kerr.KafkaStorageError})
	n, err := s.Send(t.Context(), []outbox.Message{event("topic", 0, 0)})
	if _, retryable, err := meaning(t, err); n != 0 || !retryable {
		t.Errorf("%d taken, retryable %v: %v", n, retryable, err)
	}
}
