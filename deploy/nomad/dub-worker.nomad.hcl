# One job a stream: nomad job run -var stream=news dub-worker.nomad.hcl
variable "stream" {
  type = string
}

job "dub-worker" {
  name = "dub-${var.stream}"
  type = "service"

  group "worker" {
    count = 1
    # The stream has one name at the RTMP server: the successor starts after the predecessor has drained.
    update { max_parallel = 1 }
    network {
      port "metrics" {}
    }
    restart {
      attempts = 10
      interval = "5m"
      delay    = "5s"
      mode     = "delay"
    }

    task "worker" {
      driver       = "exec"
      kill_signal  = "SIGTERM"
      kill_timeout = "60s"

      config {
        # Nomad restarts by count, not by exit code: 2, 11 and 14 would only come back, so they wait for a person.
        # The shell passes the signal on, a moment later (a child that is not the worker yet would lose it), and waits for the drain.
        command = "/bin/sh"
        args = ["-c", <<-EOF
          trap 'stop=1; [ "$!" ] || exit 143; sleep 0.2; kill -TERM $! 2>/dev/null' TERM
          /usr/local/bin/worker &
          wait $!; code=$?
          while kill -0 $! 2>/dev/null; do wait $!; code=$?; done
          case $code in 2 | 11 | 14) [ "$stop" ] || { sleep infinity & wait $!; } ;; esac
          exit $code
        EOF
        ]
      }

      env {
        WORKER_STREAM_ID       = var.stream
        WORKER_OUTPUT_URL_FILE = "${NOMAD_SECRETS_DIR}/output-url"
        WORKER_SEGMENT_DIR     = "${NOMAD_ALLOC_DIR}/segments"
        WORKER_METRICS_ADDR    = "0.0.0.0:${NOMAD_PORT_metrics}"
        LOG_FORMAT             = "json"
      }

      template {
        destination = "${NOMAD_SECRETS_DIR}/output-url"
        data        = "{{ with nomadVar \"nomad/jobs/dub-${var.stream}\" }}{{ .output_url }}{{ end }}"
      }

      resources {
        cpu    = 200
        memory = 256
      }

      service {
        name     = "dub-worker"
        port     = "metrics"
        provider = "nomad"
        check {
          type     = "http"
          path     = "/readyz"
          interval = "10s"
          timeout  = "2s"
        }
      }
    }
  }
}
