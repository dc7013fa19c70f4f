package harness

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/walpost/walpost/test/harness/servers"
)

// KafkaCluster is a cluster of three brokers of the test's own. Every topic has
// a replica on each, and an acknowledged record is on at least two.
type KafkaCluster struct {
	*Broker
	t     testing.TB
	group *servers.Group
	nodes []*servers.Server
}

// DedicatedKafkaCluster gives the test a cluster of the newest release.
func DedicatedKafkaCluster(t testing.TB) *KafkaCluster {
	t.Helper()
	ctx, set, cancel := current.begin(t)
	defer cancel()
	c := &KafkaCluster{t: t}
	var err error
	if c.group, c.nodes, err = set.KafkaCluster(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { retireGroup(t, c.group, c.nodes...) })
	var addrs []string
	for _, node := range c.nodes {
		addrs = append(addrs, node.Addr)
	}
	c.Broker = newBroker(addrs...)
	return c
}

// Node is a broker, counted from 0.
func (c *KafkaCluster) Node(i int) Faulty { return Faulty{t: c.t, server: c.nodes[i]} }

// Leader returns which broker leads a partition of a topic, by its full name,
// once there is one.
func (c *KafkaCluster) Leader(topic string, partition int32) int {
	c.t.Helper()
	leader := -1
	Eventually(c.t, kafkaTimeout, fmt.Sprintf("%s-%d has a leader", topic, partition), func() error {
		return c.converse(func(ctx context.Context, client *kgo.Client) error {
			topics, err := metadata(ctx, client, topic)
			if err != nil {
				return err
			}
			for _, p := range topics[0].Partitions {
				if p.Partition == partition && p.Leader > 0 {
					leader = int(p.Leader) - 1
					return nil
				}
			}
			return errors.New("it has none")
		})
	})
	return leader
}

// Coordinator returns which broker coordinates the transactions of an id, once
// there is one.
func (c *KafkaCluster) Coordinator(transactionalID string) int {
	c.t.Helper()
	request := kmsg.NewPtrFindCoordinatorRequest()
	request.CoordinatorType, request.CoordinatorKey = 1, transactionalID // 1: of transactions
	var node int32
	Eventually(c.t, kafkaTimeout, "transactions of "+transactionalID+" have a coordinator", func() error {
		return c.converse(func(ctx context.Context, client *kgo.Client) error {
			response, err := request.RequestWith(ctx, client)
			if err != nil {
				return err
			}
			node = response.NodeID
			return kerr.ErrorForCode(response.ErrorCode)
		})
	})
	return int(node) - 1
}

// AwaitInSync waits until every replica has everything: only then is the loss of
// any broker harmless.
func (c *KafkaCluster) AwaitInSync() {
	c.t.Helper()
	Eventually(c.t, kafkaTimeout, "every replica is in sync", func() error {
		return c.converse(func(ctx context.Context, client *kgo.Client) error {
			topics, err := metadata(ctx, client)
			errs := []error{err}
			for _, topic := range topics {
				for _, p := range topic.Partitions {
					if len(p.ISR) < len(c.nodes) {
						errs = append(errs, fmt.Errorf("%s-%d has %d of %d", *topic.Topic, p.Partition, len(p.ISR), len(c.nodes)))
					}
				}
			}
			return errors.Join(errs...)
		})
	})
}
