if (run.reviewable) startReview();
if (run.live) startLive();
start();
