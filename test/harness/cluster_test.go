package harness

import (
	"fmt"
	"testing"
	"time"
)

// TestAClusterOutlivesAnyBroker: whichever is killed, what was acknowledged is
// there and more can be written; one that is back replicates again.
func TestAClusterOutlivesAnyBroker(t *testing.T) {
	cluster := DedicatedKafkaCluster(t)
	topic := cluster.Topic("kept")
	cluster.CreateTopic(t, topic, 1)
	want := 0
	write := func() {
		cluster.Produce(t, Record{Topic: topic, Value: fmt.Append(nil, want)})
		want++
	}
	write()
	for range 2 {
		cluster.AwaitInSync()
		lost := cluster.Leader(topic, 0)
		cluster.Node(lost).Kill()
		took := Eventually(t, 30*time.Second, "a new leader", func() error {
			if now := cluster.Leader(topic, 0); now == lost {
				return fmt.Errorf("it is still broker %d", now)
			}
			return nil
		})
		t.Logf("a new leader after %s", took)
		write()
		if got := cluster.Consume(t, topic); len(got) != want {
			t.Errorf("%d records, want %d", len(got), want)
		}
		cluster.Node(lost).Start()
	}
	cluster.AwaitInSync()
	coordinator := cluster.Coordinator("some-id")
	cluster.Node(coordinator).Kill()
	Eventually(t, 30*time.Second, "another coordinator", func() error {
		if now := cluster.Coordinator("some-id"); now == coordinator {
			return fmt.Errorf("it is still broker %d", now)
		}
		return nil
	})
}
