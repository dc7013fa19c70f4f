package kafka

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/walpost/walpost/outbox"
)

// frozenBroker is the address of a broker that was stopped: the kernel accepts
// connections, nobody answers.
func frozenBroker(t *testing.T) *net.TCPListener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.(*net.TCPListener)
}

// behindFrozen lists a frozen broker before the cluster's. A request to it takes
// longer than any test.
func behindFrozen(t *testing.T, cluster *kfake.Cluster) Config {
	t.Helper()
	cfg := testConfig(cluster)
	cfg.Brokers = append([]string{frozenBroker(t).Addr().String()}, cfg.Brokers...)
	cfg.RequestTimeout = time.Hour
	return cfg
}

func TestAFrozenBrokerListedFirstStopsNothing(t *testing.T) {
	for kind, atomic := range map[string]bool{"continuous": false, "atomic": true} {
		t.Run(kind, func(t *testing.T) {
			cluster := fakeCluster(t)
			makeTopic(t, cluster, "topic", 1)
			cfg := behindFrozen(t, cluster)
			cfg.Atomic = atomic
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			kafka := newSink(t, cfg)
			if err := kafka.EnsureCheckpointTopic(ctx); err != nil {
				t.Fatal(err)
			}
			if err := kafka.WriteMarks(ctx, map[string][]byte{"position": []byte("1")}); err != nil {
				t.Fatal(err)
			}
			marks, err := newSink(t, cfg).Marks(ctx)
			if err != nil || string(marks["position"]) != "1" {
				t.Errorf("the marks are %q: %v", marks, err)
			}
			s, _ := opened(t, newSink(t, cfg))
			if n, err := s.Send(ctx, []outbox.Message{event("topic", 0, 0)}); n != 1 || err != nil {
				t.Fatalf("%d taken: %v", n, err)
			}
			if err := s.Commit(ctx, 1, map[string][]byte{"position": []byte("2")}); err != nil {
				t.Error(err)
			}
			if err := s.Close(ctx); err != nil {
				t.Error(err)
			}
		})
	}
}

// A frozen broker delays a process once.
func TestTheBrokerThatAnsweredLastIsAskedFirst(t *testing.T) {
	cluster := fakeCluster(t)
	cfg := behindFrozen(t, cluster)
	kafka := newSink(t, cfg)
	if got := kafka.order(); !slices.Equal(got, cfg.Brokers) {
		t.Errorf("at first they are asked in the order %v", got)
	}
	if got := kafka.connectable().Brokers; !slices.Equal(got, cfg.Brokers) {
		t.Errorf("at first clients begin with %v", got)
	}
	if _, err := kafka.ClusterID(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, want := kafka.order(), []string{cfg.Brokers[1], cfg.Brokers[0]}; !slices.Equal(got, want) {
		t.Errorf("they are asked in the order %v, not %v", got, want)
	}
	if got, want := kafka.connectable().Brokers, cfg.Brokers[1:]; !slices.Equal(got, want) {
		t.Errorf("clients begin with %v, not %v", got, want)
	}
}

func TestTheErrorsOfAllBrokersAreReported(t *testing.T) {
	cfg := testConfig(fakeCluster(t))
	cfg.Brokers = []string{"127.0.0.1:1", "127.0.0.1:2"}
	_, err := newSink(t, cfg).Marks(t.Context())
	condition, retryable, err := meaning(t, err)
	if condition != condUnreachable || !retryable || !strings.Contains(err.Error(), "127.0.0.1:1: ") || !strings.Contains(err.Error(), "127.0.0.1:2: ") {
		t.Errorf("condition %q, retryable %v: %v", condition, retryable, err)
	}
}

func TestWaitingForFrozenBrokersCanBeGivenUp(t *testing.T) {
	first, second := frozenBroker(t), frozenBroker(t)
	cfg := testConfig(fakeCluster(t))
	cfg.Brokers = []string{first.Addr().String(), second.Addr().String()}
	cfg.RequestTimeout = time.Hour
	ctx, giveUp := context.WithCancel(t.Context())
	go func() {
		for _, l := range []*net.TCPListener{first, second} { // both are asked
			if c, err := l.Accept(); err == nil {
				defer func() { _ = c.Close() }()
			}
		}
		giveUp()
	}()
	if _, err := newSink(t, cfg).Marks(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("the marks were read: %v", err)
	}
}
