if (run.of) startReview();
if (run.live) startLive();
start();
