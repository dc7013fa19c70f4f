package kafka

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/IBM/sarama"

	"github.com/walpost/walpost/sink"
)

func TestErrorsHaveAMeaning(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{sarama.ErrTopicAuthorizationFailed, condAuthFailed},
		{sarama.ErrSASLAuthenticationFailed, condAuthFailed},
		{sarama.ErrTransactionalIDAuthorizationFailed, condAuthFailed},
		{sarama.ErrUnknownTopicOrPartition, condTopicMissing},
		{sarama.ErrProducerFenced, condTakenOver},
		{sarama.ErrInvalidProducerEpoch, condTakenOver},
		{sarama.ErrInvalidTxnState, condTakenOver},
		{sarama.ErrInvalidProducerIDMapping, ""},
		{sarama.ErrNotEnoughReplicas, condStalled},
		{sarama.ErrOutOfBrokers, condUnreachable},
		{sarama.ErrLeaderNotAvailable, condUnreachable},
		{sarama.ErrRequestTimedOut, condUnreachable},
		{sarama.ErrNotConnected, condUnreachable},
		{io.EOF, condUnreachable},
		{&net.OpError{Op: "dial", Err: errors.New("connection refused")}, condUnreachable},
		{sarama.ErrOutOfOrderSequenceNumber, ""},
		{sarama.ErrUnknown, ""},
		{fmt.Errorf("wrapped: %w", sarama.ErrClusterAuthorizationFailed), condAuthFailed},
		{sarama.ProducerErrors{{Err: sarama.ErrProducerFenced}}, condTakenOver},
		{errors.Join(io.EOF, sarama.ErrSASLAuthenticationFailed), condAuthFailed},
	} {
		condition, retryable, err := meaning(t, classify("op", c.err))
		if condition != c.want || !retryable {
			t.Errorf("%v means %q (retryable %v), want %q", c.err, condition, retryable, c.want)
		}
		if !errors.Is(err, firstCause(c.err)) {
			t.Errorf("%v got lost", c.err)
		}
	}
}

// What the client library refuses by its configuration never reached a broker,
// but the brokers are not to blame.
func TestARefusalOfTheClientItselfIsFinal(t *testing.T) {
	for name, err := range map[string]error{
		"alone":     sarama.ConfigurationError("Producer.Foo must be > 0"),
		"in a list": sarama.ProducerErrors{{Err: sarama.ConfigurationError("Producer.Foo must be > 0")}},
	} {
		t.Run(name, func(t *testing.T) {
			condition, retryable, err := meaning(t, classify("op", err))
			if condition != "" || retryable || !strings.Contains(err.Error(), "Producer.Foo") || strings.Contains(err.Error(), "reached") {
				t.Errorf("condition %q, retryable %v: %v", condition, retryable, err)
			}
		})
	}
}

func TestAMeaningIsKept(t *testing.T) {
	for _, err := range []error{
		&failure{op: "inner", err: io.EOF, condition: condCheckpointMissing, final: true},
		fmt.Errorf("outer: %w", &sink.Rejected{Err: io.EOF}),
	} {
		if got := classify("outer", err); !errors.Is(got, err) || got.Error() != err.Error() {
			t.Errorf("%v became %v", err, got)
		}
	}
}
