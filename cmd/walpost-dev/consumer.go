package main

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/walpost/walpost/outbox"
)

// consumer reads the event topics from their beginning.
type consumer struct {
	client *kgo.Client
	ledger *ledger
}

func newConsumer(brokers []string, l *ledger) (*consumer, error) {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(brokers...),
		kgo.ConsumeTopics(eventTopics()...),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
	)
	if err != nil {
		return nil, fmt.Errorf("make the consumer: %w", err)
	}
	return &consumer{client: client, ledger: l}, nil
}

// run notes what arrives until ctx ends. A record that was produced before is
// not left behind: the story waits for it first.
func (c *consumer) run(ctx context.Context) error {
	defer c.client.Close()
	for {
		fetches := c.client.PollFetches(ctx)
		now := time.Now()
		if ctx.Err() != nil {
			return nil
		}
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("consume: %w", err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			c.ledger.arrive(sighting{id: eventID(r), topic: r.Topic, partition: r.Partition, at: now})
		})
	}
}

// eventID is what a consumer recognises an event by that comes twice.
func eventID(r *kgo.Record) string {
	for _, h := range r.Headers {
		if h.Key == outbox.HeaderID {
			return string(h.Value)
		}
	}
	return ""
}
