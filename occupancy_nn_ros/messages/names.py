# SPDX-License-Identifier: Apache-2.0
"""Names of the message types that go in and out, and of the topics that ROS fixes."""

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
COMPRESSED_VIDEO = "foxglove_msgs/msg/CompressedVideo"
FFMPEG_PACKET = "ffmpeg_image_transport_msgs/msg/FFMPEGPacket"
VIDEO_TYPES = (COMPRESSED_VIDEO, FFMPEG_PACKET)
POINT_CLOUD = "sensor_msgs/msg/PointCloud2"
TF_MESSAGE = "tf2_msgs/msg/TFMessage"
ODOMETRY = "nav_msgs/msg/Odometry"
POSE_STAMPED = "geometry_msgs/msg/PoseStamped"
OCCUPANCY_GRID = "nav_msgs/msg/OccupancyGrid"
MARKER_ARRAY = "visualization_msgs/msg/MarkerArray"
DIAGNOSTIC_ARRAY = "diagnostic_msgs/msg/DiagnosticArray"
LASER_SCAN = "sensor_msgs/msg/LaserScan"
OCTOMAP = "octomap_msgs/msg/Octomap"
VOXEL_GRID = "occupancy_nn_ros/msg/VoxelGrid"
MAP_STATUS = "occupancy_nn_ros/msg/MapStatus"

TF_TOPICS = {"/tf": False, "/tf_static": True}
"""Transform topics and whether their transforms are static."""
