package stream_test

import (
	"fmt"
	"net"
	"time"

	"github.com/lockstep-storage/lockstep/target/internal/stream"
)

func Example() {
	client, server := net.Pipe()
	s, err := stream.Open(server, time.Second)
	if err != nil {
		fmt.Println(err)
		return
	}
	go client.Write([]byte("hello"))
	p := make([]byte, 100)
	n, err := s.Read(p, true)
	fmt.Printf("%s %v\n", p[:n], err)
	s.Close()
	// Output: hello <nil>
}
