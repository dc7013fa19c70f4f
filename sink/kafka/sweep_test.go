package kafka

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/walpost/walpost/outbox"
)

func TestNewestIsFoundInAllTopics(t *testing.T) {
	cluster := fakeCluster(t)
	makeTopic(t, cluster, "topic", 2)
	makeTopic(t, cluster, "other", 1)
	kafka := prepared(t, testConfig(cluster))
	below := ours(1000, "a")
	publish(t, cluster, below) // below the floor
	predecessor(t, kafka, "topic", "other")
	at := func(i int, topic string, partition int32) outbox.Message {
		return changed(ours(i, "a"), func(m *outbox.Message) { m.Topic, m.Partition = topic, partition })
	}
	stranger := at(100, "topic", 0)
	identified(&stranger, "another")
	publish(t, cluster, at(3, "topic", 0), at(7, "topic", 1), at(2, "topic", 1), at(5, "other", 0), stranger)
	publishOpen(t, cluster, at(200, "topic", 0))(kgo.TryAbort)

	s, _ := opened(t, kafka)
	if got, err := s.Newest(t.Context(), ourSource); err != nil || got != ours(7, "a").Pos {
		t.Errorf("the newest is %s: %v", got, err)
	}
	mustSend(t, s, ours(8, "a"))
}

// A topic that is gone can't be looked at, and says nothing of the others.
func TestNewestWithoutATopicThatIsGone(t *testing.T) {
	cluster := fakeCluster(t)
	makeTopic(t, cluster, "topic", 1)
	makeTopic(t, cluster, "other", 1)
	log := &bytes.Buffer{}
	kafka := prepared(t, logged(testConfig(cluster), log))
	predecessor(t, kafka, "topic", "other")
	publish(t, cluster, sentTo("other", keyed("a", "b"))...)
	deleteTopic(t, cluster, "topic")

	s, _ := opened(t, kafka)
	if got, err := s.Newest(t.Context(), ourSource); err != nil || got != ours(1, "b").Pos {
		t.Errorf("the newest is %s: %v", got, err)
	}
	closed(t, s)
	wantWarning(t, log, "topic")
}

// logged is cfg with a logger that writes warnings to log.
func logged(cfg Config, log *bytes.Buffer) Config {
	cfg.Logger = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelWarn}))
	return cfg
}

// wantWarning expects one warning about a topic that is gone.
func wantWarning(t *testing.T, log *bytes.Buffer, topic string) {
	t.Helper()
	if got := log.String(); strings.Count(got, "level=WARN") != 1 || !strings.Contains(got, "does not exist any more") || !strings.Contains(got, "topic="+topic+"\n") {
		t.Errorf("the log is %q", got)
	}
}

func TestNewestWhereRecordsAreLost(t *testing.T) {
	for name, lose := range map[string]func(t *testing.T, cluster *kfake.Cluster, kafka *Sink){
		"the topic is another": func(t *testing.T, cluster *kfake.Cluster, _ *Sink) {
			t.Helper()
			deleteTopic(t, cluster, "topic")
			makeTopic(t, cluster, "topic", 1)
		},
		"the partition is shorter": func(t *testing.T, _ *kfake.Cluster, kafka *Sink) {
			t.Helper()
			setFloor(t, kafka, 3)
		},
	} {
		t.Run(name, func(t *testing.T) {
			cluster, kafka := succession(t)
			publish(t, cluster, keyed("a", "b")...)
			lose(t, cluster, kafka)

			s, _ := opened(t, kafka)
			_, err := s.Newest(t.Context(), ourSource)
			if condition, retryable, err := meaning(t, err); condition != condLostRecords || retryable {
				t.Errorf("condition %q, retryable %v: %v", condition, retryable, err)
			}
			if condition, _, _ := outcome(t, s); condition != condLostRecords {
				t.Errorf("the session has ended with condition %q", condition)
			}
		})
	}
}

func TestNewestThatCannotBeRead(t *testing.T) {
	cluster, kafka := succession(t)
	publish(t, cluster, keyed("a")...)
	s, _ := opened(t, kafka)
	cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: "topic", Err: kerr.TopicAuthorizationFailed})
	_, err := s.Newest(t.Context(), ourSource)
	if condition, retryable, err := meaning(t, err); condition != condAuthFailed || !retryable {
		t.Errorf("condition %q, retryable %v: %v", condition, retryable, err)
	}
	if _, _, err := outcome(t, s); err == nil {
		t.Error("the session has no error")
	}
}

func TestCloseWhileTheNewestIsLookedFor(t *testing.T) {
	cluster, kafka := succession(t)
	publish(t, cluster, keyed("a")...)
	end := publishOpen(t, cluster, ours(9, "x"))
	s, _ := opened(t, kafka)
	asked, release := holdFetch(cluster)
	found := make(chan error, 1)
	go func() {
		_, err := s.Newest(t.Context(), ourSource)
		found <- err
	}()
	<-asked
	result := make(chan error, 1)
	go func() { result <- s.Close(t.Context()) }()
	<-s.closing
	release()
	if err := <-found; err == nil {
		t.Error("something was found")
	}
	if err := <-result; err != nil {
		t.Errorf("close: %v", err)
	}
	end(kgo.TryAbort)
}
