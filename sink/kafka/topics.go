package kafka

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/IBM/sarama"
	"github.com/cenkalti/backoff/v4"
)

// topicPollInterval is how often a new topic is asked for until the broker knows
// it and all its partitions have leaders.
const topicPollInterval = 50 * time.Millisecond

// ClusterID is the id the brokers give their cluster.
func (s *Sink) ClusterID(ctx context.Context) (string, error) {
	d := newDialer(s.cfg.DialTimeout)
	defer d.cut()
	stop := context.AfterFunc(ctx, d.cut)
	defer stop()
	resp, _, err := s.describe(d, s.cfg.CheckpointTopic)
	if err != nil {
		return "", or(ctx, err)
	}
	if resp.ClusterID == nil {
		return "", errors.New("kafka sink: the broker does not tell its cluster id")
	}
	return *resp.ClusterID, nil
}

// EnsureCheckpointTopic creates the topic that holds the marks, or checks the
// one that exists. It may be called any number of times.
func (s *Sink) EnsureCheckpointTopic(ctx context.Context) error {
	d := newDialer(s.cfg.DialTimeout)
	defer d.cut()
	stop := context.AfterFunc(ctx, d.cut)
	defer stop()
	detail := &sarama.TopicDetail{NumPartitions: 1, ReplicationFactor: s.cfg.Topics.ReplicationFactor, ConfigEntries: checkpointTopicConfig()}
	topic, err := s.ensureTopic(d, s.cfg.CheckpointTopic, detail)
	if err != nil {
		return or(ctx, err)
	}
	if err := checkPartitionCount(topic); err != nil {
		return err
	}
	return or(ctx, s.checkCompacted(d, topic.Name))
}

// checkpointTopicConfig keeps the topic small, because every start reads all of
// it: one commit per second makes 86,400 records a day, of which only the newest
// per mark matters. Only closed segments are compacted, so they are closed at
// 1 MiB (the minimum of 4.x brokers) and compacted when 1% of them is stale.
func checkpointTopicConfig() map[string]*string {
	policy, segment, ratio := "compact", "1048576", "0.01"
	return map[string]*string{
		"cleanup.policy":            &policy,
		"segment.bytes":             &segment,
		"min.cleanable.dirty.ratio": &ratio,
	}
}

// checkPartitionCount verifies that there is one partition: marks are written and
// read only there.
func checkPartitionCount(topic *sarama.TopicMetadata) error {
	if n := len(topic.Partitions); n != 1 {
		return &failure{
			op:     "checkpoint topic " + topic.Name,
			err:    fmt.Errorf("it has %d partitions, not 1", n),
			remedy: "give this pipeline a checkpoint topic of its own, made by `walpost init`",
			final:  true,
		}
	}
	return nil
}

// checkCompacted verifies that retention can't delete the marks. A topic whose
// configuration may not be read is assumed to be right.
func (s *Sink) checkCompacted(d *dialer, topic string) error {
	var policy string
	err := s.withAdmin(d, topic, func(admin sarama.ClusterAdmin) (err error) {
		policy, err = s.cleanupPolicy(admin, topic, "compact")
		return err
	})
	switch {
	case err != nil:
		return classify("describe the configuration of topic "+topic, err)
	case policy != "compact":
		return &failure{
			op:     "checkpoint topic " + topic,
			err:    fmt.Errorf("its %s is %q, not \"compact\": retention would delete the checkpoint", policyKey, policy),
			remedy: "set cleanup.policy=compact on the topic",
			final:  true,
		}
	}
	return nil
}

// refuseCompacted is an error for a topic that is compacted without permission. A
// topic whose configuration may not be read is assumed not to be.
func (s *session) refuseCompacted(name string) error {
	if s.cfg.CompactedTopics {
		return nil
	}
	policy := "delete"
	err := s.dialer.patiently(s.cfg.RequestTimeout, "describe the configuration of topic "+name, func() error {
		admin, err := sarama.NewClusterAdminFromClient(s.marks.client) // not closed: that would close the client
		if err == nil {
			policy, err = s.sink.cleanupPolicy(admin, name, policy)
		}
		return err
	})
	if err != nil || !strings.Contains(policy, "compact") {
		return err
	}
	return &failure{
		op:  "prepare topic " + name,
		err: fmt.Errorf("its %s is %q: compaction removes records by which events are recognised that are published already", policyKey, policy),
		remedy: "set cleanup.policy=delete on the topic, or kafka.topics.allow_compacted: true, which accepts that events whose record is compacted away are published again after a restart, " +
			"with those that follow on their key, and that a consumer may miss all but the newest event of a key",
		final: true,
	}
}

// policyKey is the setting that says what becomes of old records: delete, compact
// or both, separated by a comma.
const policyKey = "cleanup.policy"

// cleanupPolicy returns fallback if the broker does not permit reading the topic's
// configuration.
func (s *Sink) cleanupPolicy(admin sarama.ClusterAdmin, topic, fallback string) (string, error) {
	policy, err := topicSetting(admin, topic, policyKey)
	if isAny(err, sarama.ErrTopicAuthorizationFailed, sarama.ErrClusterAuthorizationFailed) {
		s.cfg.Logger.Debug("not permitted to read the topic's configuration", "topic", topic)
		return fallback, nil
	}
	return policy, err
}

func topicSetting(admin sarama.ClusterAdmin, topic, key string) (string, error) {
	resource := &sarama.ConfigResource{Type: sarama.TopicResource, Name: topic, ConfigNames: []string{key}}
	results, err := admin.DescribeConfigs([]*sarama.ConfigResource{resource}, sarama.DescribeConfigsOptions{})
	if err != nil {
		return "", err
	}
	for _, result := range results {
		if result.ErrorCode != 0 {
			return "", &sarama.DescribeConfigError{Err: result.ErrorCode, ErrMsg: result.ErrorMsg}
		}
		for _, entry := range result.Configs {
			if entry.Name == key {
				return entry.Value, nil
			}
		}
	}
	return "", sarama.ErrIncompleteResponse
}

// ensureTopic returns the topic's description, after creating it as detail says
// if it was missing. A nil detail creates nothing.
func (s *Sink) ensureTopic(d *dialer, name string, detail *sarama.TopicDetail) (*sarama.TopicMetadata, error) {
	_, topic, err := s.describe(d, name)
	if err != nil {
		return nil, err
	}
	if topic.Err != sarama.ErrUnknownTopicOrPartition || detail == nil {
		return s.awaitTopic(d, name, 0)
	}
	if err := s.createTopic(d, name, detail); err != nil {
		return nil, err
	}
	return s.awaitTopic(d, name, s.cfg.RequestTimeout)
}

func (s *Sink) createTopic(d *dialer, name string, detail *sarama.TopicDetail) error {
	err := s.withAdmin(d, name, func(admin sarama.ClusterAdmin) error {
		return admin.CreateTopic(name, detail, false)
	})
	if err == nil {
		s.cfg.Logger.Info("topic created", "topic", name)
	}
	if err == nil || errors.Is(err, sarama.ErrTopicAlreadyExists) {
		return nil
	}
	return classify("create topic "+name, err)
}

// awaitTopic waits until all partitions of a topic have leaders, for as long as a
// request may take, and describes it. A broker that says that the topic does not
// exist is asked again for unknownFor: it may not have heard of it yet.
func (s *Sink) awaitTopic(d *dialer, name string, unknownFor time.Duration) (*sarama.TopicMetadata, error) {
	var topic *sarama.TopicMetadata
	start := time.Now()
	attempt := func() error {
		_, t, err := s.describe(d, name)
		if err != nil {
			return backoff.Permanent(err)
		}
		topic, err = t, topicError(t)
		unknown := isAny(err, sarama.ErrUnknownTopicOrPartition) && time.Since(start) < unknownFor
		if err == nil || unknown || isAny(err, sarama.ErrLeaderNotAvailable) {
			return err
		}
		return backoff.Permanent(err)
	}
	if err := backoff.Retry(attempt, d.polling(s.cfg.RequestTimeout)); err != nil {
		return nil, classify("describe topic "+name, err)
	}
	return topic, nil
}

// polling repeats an attempt for limit, or until the dialer is cut, which the end of
// every context in its use does.
func (d *dialer) polling(limit time.Duration) backoff.BackOff {
	times := uint64(limit / topicPollInterval) // #nosec G115 -- not negative
	return backoff.WithContext(backoff.WithMaxRetries(backoff.NewConstantBackOff(topicPollInterval), times), d.life)
}

// patiently asks again for as long as one request may take, because brokers may
// not yet agree on a topic that was just created, or on a leader that has just
// moved. It ends with the dialer.
func (d *dialer) patiently(limit time.Duration, op string, ask func() error) error {
	attempt := func() error {
		err := ask()
		if err != nil && (d.isCut() || !isAny(err, sarama.ErrNotLeaderForPartition, sarama.ErrUnknownTopicOrPartition, sarama.ErrLeaderNotAvailable)) {
			return backoff.Permanent(err)
		}
		return err
	}
	if err := backoff.Retry(attempt, d.polling(limit)); err != nil {
		return classify(op, err)
	}
	return nil
}

func topicError(t *sarama.TopicMetadata) error {
	if t.Err != sarama.ErrNoError {
		return t.Err
	}
	for _, p := range t.Partitions {
		if p.Err == sarama.ErrLeaderNotAvailable {
			return p.Err
		}
	}
	return nil
}

// withAdmin runs use with an admin client. With Metadata.Full off, the client
// learns which broker is the controller only from a metadata request for some
// topic; that works even if the topic is missing.
func (s *Sink) withAdmin(d *dialer, topic string, use func(sarama.ClusterAdmin) error) error {
	conf := s.cfg.baseConfig(d)
	conf.Metadata.Retry.Max = 0
	client, err := sarama.NewClient(s.connectable().Brokers, conf)
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	if err := client.RefreshMetadata(topic); err != nil && !isAny(err, sarama.ErrUnknownTopicOrPartition, sarama.ErrLeaderNotAvailable) {
		return err
	}
	admin, err := sarama.NewClusterAdminFromClient(client)
	if err != nil {
		return err
	}
	return use(admin)
}

// or returns err, or if ctx has ended the reason for that, which is why err
// happened.
func or(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
